"""Integrations: this package as a part of other libraries, one module and one extra each."""
