"""The New run screen: a form made from the configuration's fields, with the plan beside it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import DescendantFocus
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from engine.config import list_presets, load_preset
from engine.config.schema import FIELDS, Config, FieldSpec
from engine.errors import EngineError
from engine.text import visible
from tui_lab.form import MAIN, Form, groups
from tui_lab.job import Job
from tui_lab.keys import bindings
from tui_lab.screens.base import LabScreen
from tui_lab.widgets.cycle import Cycle
from tui_lab.widgets.plan import PlanView
from tui_lab.widgets.text_field import TextField

if TYPE_CHECKING:
    from engine.calibration import Calibration
    from engine.planner import Plan

PRESET = "micro"
PAUSE = 0.25  # seconds without a change before the plan is reckoned anew


class FieldRow(Horizontal):
    """A label, the field, and beside it its unit or what is wrong with it."""

    def __init__(self, spec: FieldSpec, text: str, options: list[str], unicode: bool) -> None:
        super().__init__(classes="field")
        self.spec = spec
        self.options = options
        self._text = text
        self._unicode = unicode

    def compose(self) -> ComposeResult:
        yield Static(self.spec.name, classes="label", markup=False)
        id = f"field-{self.spec.section}-{self.spec.name}"
        if self.options:
            yield Cycle(self.options, self._text, unicode=self._unicode, id=id)
        else:
            yield TextField(self._text, id=id, select_on_focus=False)
        yield Static(self.spec.unit, classes="note", markup=False)

    def say(self, error: EngineError | None, idle: str) -> None:
        """Show a refusal in place of the unit; the label of the field need not be repeated.

        `idle`: what the field would need to do anything; it is then faint, and can be filled in.
        """
        text = idle or self.spec.unit
        if error is not None:
            text = visible(error.title.removeprefix(f"{self.spec.key} = "), lines=False)
        note = self.query_one(".note", Static)
        if note.content != text:
            note.update(text)
        self.set_class(error is not None, "-wrong")
        self.set_class(bool(idle) and error is None, "-idle")

    def put(self, text: str) -> None:
        """Show `text` without saying that somebody typed it."""
        field = self.query_one("Cycle, Input")
        with self.prevent(Input.Changed, Cycle.Changed):
            if isinstance(field, Cycle) and text not in field.options:
                field.options.insert(0, text)
            field.value = text  # type: ignore[attr-defined]


class NewRunScreen(LabScreen):
    NAME = "new_run"
    CSS_PATH = "new_run.tcss"
    BINDINGS = bindings(NAME)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]

    def __init__(self) -> None:
        super().__init__()
        self.preset = PRESET
        self.folded = True
        self.form = Form(Config())
        self.help = ""
        self.calibrating: Job | None = None
        self._pause: Timer | None = None
        self._reckoning = 0

    def compose_body(self) -> ComposeResult:
        unicode = self.lab_app.unicode
        presets = [preset.name for preset in list_presets(self.lab_app.lab)]
        self.form = Form(self._base(presets))
        with Horizontal(id="new"):
            with Vertical(id="left"):
                with Horizontal(classes="field"):
                    yield Static("preset", classes="label")
                    yield Cycle(presets, self.preset, unicode=unicode, id="preset")
                    yield Static("", classes="note", id="preset-title", markup=False)
                with Horizontal(classes="field"):
                    yield Static("run name", classes="label")
                    yield TextField(placeholder="by itself", id="name")
                    yield Static("", classes="note", id="name-note", markup=False)
                yield VerticalScroll(*self._rows(), id="fields", can_focus=False)
                yield Static("", id="help", markup=False)
            with Vertical(id="right"):
                yield PlanView(unicode, id="plan")
                yield Button("Start (F5)", id="start", variant="primary", compact=True)

    def _base(self, presets: list[str]) -> Config:
        """The preset's configuration; a broken one is said, and the defaults stand in."""
        if self.preset not in presets and presets:
            self.preset = presets[0]
        try:
            return load_preset(self.lab_app.lab, self.preset)
        except EngineError as error:
            self.lab_app.show_error(error)
            return Config()

    def _rows(self) -> list[FieldRow | Static]:
        """The main fields by section, or all in their groups."""
        if self.folded:
            sections = dict.fromkeys(FIELDS[key].section for key in MAIN)
            shown = [
                (section, [key for key in MAIN if FIELDS[key].section == section])
                for section in sections
            ]
        else:
            shown = groups()
        made: list[FieldRow | Static] = []
        for heading, keys in shown:
            made.append(Static(heading, classes="section"))
            for key in keys:
                spec, text = FIELDS[key], self.form.text(key)
                made.append(FieldRow(spec, text, self._options(spec), self.lab_app.unicode))
        return made

    def _options(self, spec: FieldSpec) -> list[str]:
        if spec.key == "data.corpus":
            from engine.corpora import list_corpora

            return [entry.name for entry in list_corpora(self.lab_app.lab)]
        if spec.key == "data.tokenizer":
            from engine.tokenizers import KINDS

            return list(KINDS)  # those that can be made for a new run
        return ["true", "false"] if spec.kind == "bool" else list(spec.choices)

    def on_mount(self) -> None:
        self._describe_preset()
        self._judge()
        self.query_one("#preset").focus()

    # Changes.

    @on(Input.Changed, "#name")
    def _named(self) -> None:
        self._judge()

    @on(Input.Changed)
    @on(Cycle.Changed)
    def _changed(self, event: Input.Changed | Cycle.Changed) -> None:
        row = event.control.parent
        if isinstance(row, FieldRow):
            self.form.put(row.spec.key, event.value)
            self._judge()

    @on(Cycle.Changed, "#preset")
    def _other_preset(self, event: Cycle.Changed) -> None:
        self.preset = event.value
        self.form = Form(self._base([event.value]))
        self._refill()

    @on(Input.Submitted)
    def _next_field(self) -> None:
        self.focus_next()

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        self._help_on(event.widget)

    def _help_on(self, field: Widget) -> None:
        """What the focused field means and takes."""
        row = field.parent
        if isinstance(row, FieldRow):
            spec = row.spec
            words = f"{spec.key}: {spec.help}. Takes {spec.accepts()}."
        else:
            title = visible(self.form.base.title, lines=False)
            words = {
                "preset": f"{self.preset}: {title}. Left and right choose; the form follows.",
                "name": "The folder's name under checkpoints/; a name in use gets a number.",
            }.get(field.id or "", "")
        self.query_one("#help", Static).update(visible(words, lines=False))

    def _describe_preset(self) -> None:
        self.query_one("#preset-title", Static).update(visible(self.form.base.title, lines=False))

    def _refill(self) -> None:
        for row in self.query(FieldRow):
            row.put(self.form.text(row.spec.key))
        self._describe_preset()
        self._judge()
        if self.focused is not None:
            self._help_on(self.focused)

    def _judge(self) -> None:
        """Check every field, say what is wrong beside it, and have the plan reckoned soon."""
        self.form.check()
        for row in self.query(FieldRow):
            row.say(self.form.errors.get(row.spec.key), self.form.idle(row.spec.key))
        trouble = self._name_trouble()
        note = self.query_one("#name-note", Static)
        note.update(visible(trouble.title, lines=False) if trouble else "")
        note.set_class(trouble is not None, "-wrong")
        self.query_one("#start", Button).disabled = self.form.config is None or trouble is not None
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(PAUSE, self._reckon)

    def _name_trouble(self) -> EngineError | None:
        from engine.runs import check_name

        name = self.query_one("#name", Input).value.strip()
        try:
            if name:
                check_name(name)
        except EngineError as error:
            return error
        return None

    # The plan.

    def _reckon(self) -> None:
        """Reckon in a worker: it may read a corpus's manifest from a slow disk."""
        self._reckoning += 1
        config = self.form.config
        if config is None:
            # What stands beside its field need not be said twice.
            beside = {row.spec.key for row in self.query(FieldRow)}
            others = (error for key, error in self.form.errors.items() if key not in beside)
            self.query_one(PlanView).show(None, next(others, None))
            return
        number, lab = self._reckoning, self.lab_app.lab

        def work() -> None:
            plan: Plan | None = None
            trouble: EngineError | None = None
            try:
                from engine.survey import plan_run

                plan = plan_run(lab, config)
            except EngineError as error:
                trouble = error
            if number == self._reckoning and self.app.is_running:
                self.app.call_from_thread(self._reckoned, number, plan, trouble)

        self.run_worker(work, thread=True, group="plan", exclusive=True, exit_on_error=False)

    def _reckoned(self, number: int, plan: Plan | None, trouble: EngineError | None) -> None:
        if number == self._reckoning and self.is_mounted:
            self.query_one(PlanView).show(plan, trouble)

    # Calibrating.

    def action_calibrate(self) -> None:
        """Measure some steps of the form's configuration; pressed again, leave off."""
        if self.calibrating is not None:
            self.calibrating.cancel()
            return
        config = self.form.config
        if config is None:
            self.lab_app.show_error(next(iter(self.form.errors.values())))
            self._focus_wrong()
            return
        if self.lab_app.trainer.active:
            title = "beside a run the steps would be measured too slow"
            self.lab_app.show_error(EngineError(title, "calibrate when it has ended"))
            return
        self.calibrating = Job("calibrating")
        self.query_one(PlanView).say("measuring 20 steps; f6 leaves off")
        self.run_worker(partial(self._calibrate, self.calibrating, config), group="calibrate")

    async def _calibrate(self, job: Job, config: Config) -> None:
        from engine.calibration import calibrate

        def work() -> Calibration | None:
            return calibrate(self.lab_app.lab, config, should_stop=lambda: job.cancelled)

        try:
            found = await asyncio.to_thread(work)
            if found is not None:
                off = f"time {found.time_error:+.0%}, memory {found.memory_error:+.0%}"
                self.lab_app.notify_safe(f"the plan was off: {off}")
        except EngineError as error:
            self.lab_app.show_error(error)
        finally:
            self.calibrating = None
            for view in self.query(PlanView):  # none when the app is closing
                view.say("")
                self._reckon()

    def on_unmount(self) -> None:
        if self.calibrating is not None:
            self.calibrating.cancel()  # the app must not wait for it

    # Keys.

    @on(Button.Pressed, "#start")
    def _start_pressed(self) -> None:
        self.action_start()

    def action_start(self) -> None:
        self.run_worker(self._start(), group="start", exclusive=True)

    async def _start(self) -> None:
        """Start the run of the form; the form stays as it is, whatever happens."""
        self.form.check()
        trouble = self._name_trouble() or next(iter(self.form.errors.values()), None)
        if trouble is not None or self.form.config is None:
            self.lab_app.show_error(trouble or EngineError("the form is not complete"))
            self._focus_wrong()
            return
        if self.lab_app.trainer.active:
            await self._refuse_second()
            return
        if self.calibrating is not None:
            self.calibrating.cancel()  # the two would share the machine
        name = self.query_one("#name", Input).value.strip() or None
        try:
            from engine.session import check_request

            check_request(self.lab_app.lab, self.form.config, name)
            self.lab_app.start_run(self.form.config, preset=self.preset, name=name)
        except EngineError as error:
            self.lab_app.show_error(error)

    async def _refuse_second(self) -> None:
        from tui_lab.screens.dialogs import Dialog

        stop = await self.lab_app.ask(
            Dialog(
                "A run is training",
                "Only one trains at a time. Stop and save it? The form is kept: press F5 again "
                "when it has ended.",
                yes="Stop and save it",
                no="Let it train",
            )
        )
        if stop:
            self.lab_app.stop_run()

    def _focus_wrong(self) -> None:
        for row in self.query(FieldRow):
            if row.spec.key in self.form.errors:
                row.query_one("Cycle, Input").focus()
                return

    def action_reset(self) -> None:
        self.form = Form(self.form.base)
        self._refill()

    async def action_fold(self) -> None:
        """Show all fields by section, or the main ones; what was typed stays."""
        self.folded = not self.folded
        fields = self.query_one("#fields", VerticalScroll)
        async with self.batch():
            await fields.remove_children()
            await fields.mount_all(self._rows())
        self.keybar.show(fold="all fields" if self.folded else "main fields")
        self._judge()
        self.query_one("#preset").focus()

    def action_leave(self) -> None:
        self.lab_app.go("train")
