"""The list widgets: what leaves when it is narrow, what is repainted, how text is laid out."""

from __future__ import annotations

from rich.cells import cell_len
from textual.app import App, ComposeResult

from tui_lab.widgets.pane import Pane, fact, flow
from tui_lab.widgets.table import Cell, Column, Row, Table, clip, fit
from tui_lab.widgets.token_map import TokenMap, TokenPiece, lay_out

COLUMNS = (
    Column("name", "name", grow=True, least=6),
    Column("a", "a", priority=1),
    Column("b", "b", priority=2),
)


def test_columns_leave_by_priority_before_the_kept_one_is_cut() -> None:
    natural = [20, 5, 5]
    assert fit(COLUMNS, natural, 40) == {0: 20, 1: 5, 2: 5}
    assert fit(COLUMNS, natural, 25) == {0: 11, 1: 5, 2: 5}  # the growing one shrinks first
    assert fit(COLUMNS, natural, 18) == {0: 11, 1: 5}
    assert fit(COLUMNS, natural, 12) == {0: 12}
    assert fit(COLUMNS, natural, 3) == {0: 3}


def test_clipped_text_has_exactly_its_width_whatever_the_characters() -> None:
    for text in ("abc", "abcdefghij", "猫猫猫猫", "naïve 猫", ""):
        for width in range(1, 9):
            for right in (False, True):
                assert cell_len(clip(text, width, right)) == width


class Shown(App[None]):
    def compose(self) -> ComposeResult:
        yield Table(COLUMNS)


def rows(count: int, changed: int = -1) -> list[Row]:
    return [
        Row(str(i), (f"row {i}", Cell("x" if i == changed else "y"), "z")) for i in range(count)
    ]


async def test_only_the_changed_line_is_painted(monkeypatch) -> None:
    """On a slow link two hundred rows must not be sent because one figure moved."""
    app = Shown()
    async with app.run_test(size=(60, 20)) as pilot:
        table = app.query_one(Table)
        table.set_rows(rows(200))
        await pilot.pause()
        painted: list = []
        monkeypatch.setattr(table, "refresh", lambda *regions, **_: painted.extend(regions))
        table.set_rows(rows(200))
        assert painted == []
        table.set_rows(rows(200, changed=4))
        assert [(region.y, region.height) for region in painted] == [(5, 1)]
        painted.clear()
        table.set_rows(rows(200, changed=150))  # row 4 changes back; 150 is out of sight
        assert [region.y for region in painted] == [5]


async def test_the_cursor_stays_on_its_row_when_rows_come_and_go() -> None:
    app = Shown()
    async with app.run_test(size=(60, 20)) as pilot:
        table = app.query_one(Table)
        table.set_rows(rows(50))
        table.focus()
        await pilot.press("end")
        assert table.key == "49" and table.scroll_y > 0
        table.set_rows(rows(50)[10:])
        assert table.key == "49"
        table.set_rows(rows(3))
        assert table.key == "2"
        table.set_rows([])
        assert table.key is None
        await pilot.press("down", "pageup", "home")  # an empty table takes every key


def test_a_long_fact_goes_on_under_its_value() -> None:
    lines = flow(fact("note", "one two three four", width=5), 14)
    assert ["".join(text for text, _ in line) for line in lines] == [
        "note  one two ",
        "      three ",
        "      four",
    ]
    path = flow(fact("at", "/a/very/long/path/without/spaces", width=3), 20)
    assert all(sum(cell_len(text) for text, _ in line) <= 20 for line in path)


async def test_a_pane_makes_hostile_text_visible() -> None:
    class One(App[None]):
        def compose(self) -> ComposeResult:
            yield Pane()

    async with One().run_test(size=(40, 5)) as pilot:
        pane = pilot.app.query_one(Pane)
        pane.show([(("\x1b]0;x\x07[red]\n", ""),)])
        await pilot.pause()
        assert "".join(segment.text for segment in pane.render_line(0)).startswith("␛]0;x␇[red]␊")


def test_every_token_is_laid_out_once_and_no_line_is_too_wide() -> None:
    """What is drawn is the text: nothing is lost at the edge of a line or of a token."""
    words = ["The", " cat", "\n\n", "  ", "a" * 25, " 猫", "end\nnext", "\t"]
    pieces = [TokenPiece(i, word.encode()) for i, word in enumerate(words)]
    for width in (8, 9, 20):
        lines = lay_out(pieces, width)
        assert all(sum(cell_len(part.text) for part in line) <= width for line in lines)
        drawn: dict[int, str] = {}
        for line in lines:
            for part in line:
                drawn[part.index] = drawn.get(part.index, "") + part.text
        wanted = {i: piece.text.replace("\n", "") for i, piece in enumerate(pieces)}
        assert drawn == wanted


def test_a_bar_stands_between_tokens_that_share_a_line() -> None:
    pieces = [TokenPiece(i, text) for i, text in enumerate((b"a", b"b\n", b"c", b"\xe7"))]
    text = ["".join(part.text for part in line) for line in lay_out(pieces, 20, "|")]
    assert text == ["a|b⏎", "c|⟨e7⟩"]


def test_special_tokens_and_control_characters_are_named() -> None:
    assert TokenPiece(0, b"").text == "⟨end of text⟩"
    assert TokenPiece(0, b"", "<unk>").text == "⟨<unk>⟩"
    assert TokenPiece(0, b"\x1b[31m").text == "␛[31m"


async def test_walking_and_paging_over_the_end_asks_for_more() -> None:
    asked: list[int] = []

    class One(App[None]):
        def compose(self) -> ComposeResult:
            yield TokenMap()

        def on_token_map_turned(self, event: TokenMap.Turned) -> None:
            asked.append(event.by)

    async with One().run_test(size=(20, 6)) as pilot:
        tokens = pilot.app.query_one(TokenMap)
        tokens.show_pieces([TokenPiece(i, f"word{i} ".encode()) for i in range(60)])
        tokens.focus()
        await pilot.press("left")
        assert asked == [-1]
        await pilot.press("down", "right")
        assert tokens.cursor > 1
        await pilot.press("end", "right")
        assert asked == [-1, 1] and tokens.cursor == 59 and tokens.scroll_y > 0
