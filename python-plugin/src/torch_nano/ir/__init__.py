"""The intermediate representation: values, operators, layers and graphs as plain data.

It does not depend on any single operator: :mod:`.operator` is the base class of all, :mod:`.layer` the
arguments of their runs, :mod:`.graph` a model.
"""
