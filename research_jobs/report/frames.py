"""Pages of their own for outputs, shown in a sandbox.

An output that acts (scripts, forms, drawings by script) gets a frame in which its scripts run on an
origin of their own. A policy keeps them from the network and `frame.js` takes away what no policy
holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape

from research_jobs.report.assets import asset_text

__all__ = ["FRAME_POLICY", "Frame", "acting_frame"]

FRAME_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data:; "
    "worker-src blob:; child-src 'none'; frame-src 'none'; object-src 'none'; form-action 'none'; "
    "base-uri 'none'; webrtc 'block'; require-trusted-types-for 'script'; trusted-types rj default"
)
_STYLE = (
    "body{margin:0;font:14px/1.5 system-ui,sans-serif;background:#fff;color:#1f2328}"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:2px 8px}"
)
# A frame's page tells its height; the report cannot look into it.
_HEIGHT = """(function(){
function tell(){var b=document.body,d=document.documentElement;
parent.postMessage({researchJobsHeight:Math.max(b?b.scrollHeight:0,d.offsetHeight)},"*")}
addEventListener("load",tell);addEventListener("resize",tell);
if(window.ResizeObserver)new ResizeObserver(tell).observe(document.documentElement)
})()"""


@dataclass(frozen=True)
class Frame:
    """A page for one output.

    Parameters
    ----------
    name : str
        Of its file.
    document : str
        HTML.
    """

    name: str
    document: str


def acting_frame(name: str, body: str) -> Frame:
    """A page whose scripts run and reach nothing.

    Parameters
    ----------
    name : str
    body : str
        Untrusted markup. The page has it as text of a script, which `frame.js` takes apart.
    """
    text = json.dumps(body).replace("<", "\\u003c")
    guard = f"{asset_text('frame.js').rstrip()}({text})"
    return Frame(name, _document(FRAME_POLICY, f"<script>{guard}</script>"))


def _document(policy: str, body: str) -> str:
    return (
        '<!doctype html><html><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=False)}">'
        '<meta http-equiv="x-dns-prefetch-control" content="off">'
        f"<style>{_STYLE}</style><script>{_HEIGHT}</script></head><body>{body}</body></html>"
    )
