"""A WhatsApp Cloud API of our own: accepts messages, keeps them, reports statuses, and shows a phone."""

from harkara.gateway.sandbox.server import HOST, PORT, SandboxError, build_app, run_sandbox, serve

__all__ = ["HOST", "PORT", "SandboxError", "build_app", "run_sandbox", "serve"]
