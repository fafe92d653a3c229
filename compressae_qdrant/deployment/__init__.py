"""Deployment of a new model: build beside the live collection, verify, and switch the alias in one step."""

from .switch import DeployReport, collection_of, deploy, drop_previous, rollback

__all__ = ["DeployReport", "collection_of", "deploy", "drop_previous", "rollback"]
