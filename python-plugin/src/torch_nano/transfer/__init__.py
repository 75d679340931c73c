"""Strategies of transfer learning, one file each: compositions of freeze and fit."""
