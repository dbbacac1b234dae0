"""What a run looks like to a person: phases with a spinner on a terminal, a plain line a step anywhere else.

Only events come in; nothing here knows a kind beyond the words for its phase. Talk goes to stderr, so that stdout stays
for data.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import TextIO

from cinderctl.cli.progress import amount
from cinderctl.cli.tables import table
from cinderctl.core.address import Address
from cinderctl.engine.events import (
    Event,
    RunFinished,
    RunStarted,
    StepDone,
    StepFailed,
    StepProgress,
    StepRetried,
    StepSkipped,
    StepStarted,
)
from cinderctl.plans.model import Action, Plan

__all__ = ["Console", "make_console"]

_REGISTRY = ("Installing local registry", "Leaving local registry")
_PHASES: Mapping[str, tuple[str, str]] = {
    "binaries": ("Getting upstream binaries", "Releasing upstream binaries"),
    "certificate": ("Generating certificates", "Removing certificates"),
    "file": ("Writing files", "Removing files"),
    "cni": ("Installing CNI", "Removing CNI"),
    "control_plane": ("Creating control-plane node", "Stopping control-plane node"),
    "storage_class": ("Installing StorageClass", "Removing StorageClass"),
    "registry": _REGISTRY,
    "registry_hosting": _REGISTRY,
    "registry_mirror": _REGISTRY,
    "wasm_node": ("Starting wasm nodes", "Stopping wasm nodes"),
    "artifact": ("Pushing artifacts", "Removing artifacts"),
    "manifest": ("Applying manifests", "Removing manifests"),
    "command": ("Running commands", "Forgetting commands"),
    "kubeconfig": ("Writing kubeconfig entries", "Removing kubeconfig entries"),
}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_DONE = {"create": "created", "update": "updated", "delete": "deleted", "adopt": "adopted"}
_PLAIN_EVERY = 10.0  # seconds between plain progress lines of one step


def make_console(stream: TextIO, plan: Plan) -> Console:
    """The console that suits the stream. CI and NO_COLOR count as no terminal for moving things."""
    lively = stream.isatty() and os.environ.get("TERM", "") != "dumb" and not os.environ.get("CI")
    return _Terminal(stream, plan) if lively else Console(stream, plan)


class Console:
    """Plain: a line when a step ends, a line now and then while it works, a table at the end."""

    def __init__(self, stream: TextIO, plan: Plan) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._rows: dict[Address, tuple[str, str, float, str]] = {}
        self._spoken: dict[Address, float] = {}
        self._destroying = plan.mode.value == "destroy"

    def emit(self, event: Event) -> None:
        with self._lock:
            self._on(event)

    def _on(self, event: Event) -> None:
        match event:
            case StepProgress():
                self._progress(event)
            case StepRetried():
                why = event.diagnostic.summary
                self._line(f"  {event.address}: {why}; trying again in {event.after:.1f} s")
            case StepDone():
                self._remember(event.address, event.action, "done", event.seconds, "")
                self._finished(event)
            case StepFailed():
                word = "interrupted" if event.interrupted else "failed"
                why = event.diagnostics[0].summary if event.diagnostics else ""
                self._remember(event.address, event.action, word, event.seconds, why)
                self._broken(event, word)
            case StepSkipped():
                self._remember(event.address, event.action, "skipped", 0.0, event.reason)
            case RunStarted() | StepStarted() | RunFinished():
                return

    def _remember(self, address: Address, action: Action, word: str, seconds: float, why: str) -> None:
        before = self._rows.get(address)
        # A replacement is two steps and one row; what went wrong in either is what the row says.
        spent = seconds + (before[2] if before else 0.0)
        if before and before[1] in {"failed", "interrupted"}:
            word, why = before[1], before[3]
        self._rows[address] = (action.value, word, spent, why)

    def _progress(self, event: StepProgress) -> None:
        now = time.monotonic()
        if now - self._spoken.setdefault(event.address, now) < _PLAIN_EVERY:
            return
        self._spoken[event.address] = now
        self._line(f"  {event.address}: {_progress_text(event)}")

    def _finished(self, event: StepDone) -> None:
        self._line(f"  {event.address}: {_DONE.get(event.phase, event.phase)} in {event.seconds:.2f} s")

    def _broken(self, event: StepFailed, word: str) -> None:
        self._line(f"  {event.address}: {word} after {event.seconds:.2f} s")

    def _line(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self, *, context: str = "") -> None:
        """The last words: a table where anything went wrong, a count, and cinder's good-bye."""
        self._clear()
        counts = Counter(word for _, word, _, _ in self._rows.values())
        if counts.keys() - {"done"}:
            rows = [
                (str(address), action, word, f"{seconds:.2f} s" if seconds else "", why)
                for address, (action, word, seconds, why) in sorted(self._rows.items(), key=lambda item: item[1][1])
            ]
            self._line("")
            self._stream.write(table(("RESOURCE", "ACTION", "RESULT", "TIME", "REASON"), rows))
        spent = time.monotonic() - self._started
        summary = ", ".join(
            f"{counts[word]} {word}" for word in ("done", "failed", "skipped", "interrupted") if counts[word]
        )
        name = "Destroy" if self._destroying else "Apply"
        self._line(f"{name}: {summary or 'nothing done'} in {spent:.1f} s.")
        if context:
            self._line(f'{self._mark("🔥")}Set kubectl context to "{context}". Prithee, be careful.')

    def _mark(self, symbol: str) -> str:
        del symbol
        return ""

    def _clear(self) -> None:
        return


class _Terminal(Console):
    """Phases as cinder showed them, each with its time, and one line that moves."""

    def __init__(self, stream: TextIO, plan: Plan) -> None:
        super().__init__(stream, plan)
        self._going = {change.address for change in plan.pending if change.action is Action.DELETE}
        self._left = Counter(self._phase(change.address) for change in plan.pending)
        self._began: dict[str, float] = {}
        self._failed: set[str] = set()
        self._ended: set[Address] = set()
        self._now: dict[Address, str] = {}
        self._stop = threading.Event()
        self._spinner = threading.Thread(target=self._spin, name="spinner", daemon=True)
        self._spinner.start()

    def _phase(self, address: Address) -> str:
        making, removing = _PHASES.get(address.kind, (address.kind, address.kind))
        if address == Address("command", "post"):
            making = "Running post-up commands"
        return removing if address in self._going else making

    def _on(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self._began.setdefault(self._phase(event.address), time.monotonic())
            self._now[event.address] = ""
        super()._on(event)
        if isinstance(event, StepSkipped):
            self._end(event.address, failed=True)

    def _progress(self, event: StepProgress) -> None:
        self._now[event.address] = _progress_text(event)

    def _finished(self, event: StepDone) -> None:
        self._now.pop(event.address, None)
        if event.action is not Action.REPLACE or event.phase == "create":
            self._end(event.address, failed=False)

    def _broken(self, event: StepFailed, word: str) -> None:
        del word
        self._now.pop(event.address, None)
        self._end(event.address, failed=True)

    def _end(self, address: Address, *, failed: bool) -> None:
        if address in self._ended:
            return  # a replacement whose deletion failed: its creation is skipped, which is no second end
        self._ended.add(address)
        phase = self._phase(address)
        self._left[phase] -= 1
        if failed:
            self._failed.add(phase)
        if self._left[phase] == 0:
            now = time.monotonic()
            spent = now - self._began.get(phase, now)
            symbol = "❌" if phase in self._failed else "🔥"
            self._line(f"{self._mark(symbol)}{phase}  {spent:.1f} s")

    def _mark(self, symbol: str) -> str:
        return f" {symbol}  "

    def _line(self, text: str) -> None:
        self._clear()
        super()._line(text)

    def _spin(self) -> None:
        frame = 0
        while not self._stop.wait(0.1):
            with self._lock:
                active = {self._phase(address) for address in self._now}
                if not active:
                    continue
                details = [text for text in self._now.values() if text]
                line = f" {_SPINNER[frame % len(_SPINNER)]}  {', '.join(sorted(active))}"
                if details:
                    line += f": {details[-1]}"
                self._stream.write(f"\r\033[K{line[: shutil.get_terminal_size().columns - 2]}")
                self._stream.flush()
            frame += 1

    def _clear(self) -> None:
        self._stream.write("\r\033[K")

    def close(self, *, context: str = "") -> None:
        self._stop.set()
        self._spinner.join()
        super().close(context=context)


def _progress_text(event: StepProgress) -> str:
    return "  ".join(filter(None, [event.message, amount(event.done, event.total)]))
