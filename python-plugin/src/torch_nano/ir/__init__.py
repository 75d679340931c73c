"""The intermediate representation: values, operators, layers and graphs as plain data.

It knows no single operator: :mod:`.operator` has what each of them defines, :mod:`.layer` what its runs are
given, :mod:`.graph` models made of them.
"""
