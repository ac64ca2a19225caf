"""An audit of somebody's own model: what its messages give away of the images that it learns from."""

from wdlg.audit.bounds import Layer, Leak, leak
from wdlg.audit.message import Message, Private, made, private
from wdlg.audit.models import System, load, system
from wdlg.audit.received import read
from wdlg.audit.run import Attempt, Audit, audit

__all__ = [
    "Attempt",
    "Audit",
    "Layer",
    "Leak",
    "Message",
    "Private",
    "System",
    "audit",
    "leak",
    "load",
    "made",
    "private",
    "read",
    "system",
]
