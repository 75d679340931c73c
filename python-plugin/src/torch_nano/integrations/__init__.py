"""Integrations with other frameworks; each module needs a package that torch-nano does not depend on."""
