"""Helpers that several test files share: a fake server, a fault proxy, a shell for the CLI, a browser, small data."""
