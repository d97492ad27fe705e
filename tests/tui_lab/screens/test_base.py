"""A screen that is shown again: at once, and as it should look by now."""

from __future__ import annotations

from pathlib import Path

from tests.tui_lab.pilots import app_with_history, until

SIZE = (120, 36)


def looks(app) -> list[tuple[str, str]]:
    """The colours of everything on the screen, as it is styled."""
    nodes = app.screen.walk_children(with_self=True)
    return [(str(node.styles.color), str(node.styles.background)) for node in nodes]


async def test_nothing_is_styled_anew_where_nothing_changed(tmp_path: Path, monkeypatch) -> None:
    app = app_with_history(tmp_path, 100)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "1", "2", "1")
        await pilot.pause()
        styled: list[object] = []
        real = app.stylesheet.update_nodes

        def update(nodes, animate=False):
            kept = list(nodes)
            styled.extend(kept)
            real(kept, animate=animate)

        before = looks(app)
        monkeypatch.setattr(app.stylesheet, "update_nodes", update)
        await pilot.press("2")
        await until(pilot, lambda: app.screen.NAME != "train")
        await pilot.press("1")
        await until(pilot, lambda: app.screen.NAME == "train")
        await pilot.pause()
        assert len(styled) <= 3
        assert looks(app) == before


async def test_what_changed_meanwhile_is_seen(tmp_path: Path) -> None:
    """The theme, and the size of the terminal."""
    app = app_with_history(tmp_path, 100)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "1")
        await pilot.pause()
        await pilot.press("2")
        await pilot.pause()
        app.action_next_theme()
        await pilot.resize_terminal(100, 30)
        await pilot.press("1")
        await pilot.pause()
        shown = looks(app)
        assert tuple(app.screen.size) == (100, 30)
        assert all(node.region.right <= 100 for node in app.screen.walk_children())
        app.screen.update_node_styles(animate=False)  # what Textual does of itself
        assert looks(app) == shown


async def test_a_dialog_is_styled_as_textual_would(tmp_path: Path) -> None:
    app = app_with_history(tmp_path, 100)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("?")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.pause()
        shown, place = looks(app), app.screen.query_one("#help").region
        assert place.x == SIZE[0] - place.right, "in the middle, the first time too"
        app.screen.update_node_styles(animate=False)
        assert looks(app) == shown
