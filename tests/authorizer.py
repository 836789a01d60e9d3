"""For a Jupyter server whose users may look and not act."""

from __future__ import annotations

from jupyter_server.auth import Authorizer


class ReadOnly(Authorizer):
    """Allows what only reads."""

    def is_authorized(self, handler, user, action, resource):
        return action == "read"
