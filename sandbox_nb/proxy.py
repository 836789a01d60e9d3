"""Where a port of this host is for the user's browser, which may be on another."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

__all__ = ["url"]


def url(port: int) -> str:
    """The URL of what listens on a port of this host's loopback.

    Where jupyter-server-proxy forwards the port it is a path, for the user's browser: it counts from the address
    of the notebook. Under JupyterHub, as on Binder, a kernel cannot see what the server has, and nothing else
    would lead there: the proxy is taken for granted. Elsewhere it must be installed beside the kernel.
    """
    base = os.environ.get("JUPYTERHUB_SERVICE_PREFIX") or _base_url_of_server()
    return f"http://127.0.0.1:{port}/" if base is None else f"{base}proxy/{port}/"


def _base_url_of_server() -> str | None:
    """The base URL of the Jupyter server that started this kernel; None where there is none, or it has no proxy.

    jupyter_client gives a kernel the server's process id, and jupyter_server writes down what it is under that.
    """
    server = os.environ.get("JPY_PARENT_PID")
    if server is None or importlib.util.find_spec("jupyter_server_proxy") is None:
        return None
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        return str(json.loads((Path(jupyter_runtime_dir()) / f"jpserver-{server}.json").read_text())["base_url"])
    except (OSError, ValueError, KeyError):
        return None
