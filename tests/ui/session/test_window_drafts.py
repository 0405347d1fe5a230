"""A window's draft: nothing is written until OK."""

from support.sessions import KEY, right, written

from blockrate.ui.session import Session
from blockrate.ui.window_draft import WindowDraft


def test_a_window_writes_nothing_until_ok(session: Session) -> None:
    session.open(written("a.json", right(optimizer={"beta1": 0.9})))
    before = session.revision
    draft = WindowDraft(session, ["optimizer.beta1", "optimizer.optimizer"])
    assert not draft.dirty
    assert draft.get("epochs") == 100
    draft.set({"optimizer.beta1": 7, "optimizer.optimizer": "LION"})
    assert session.revision == before
    assert draft.get("optimizer.beta1") == 7
    assert "7 should be less than 1" in draft.problem("optimizer.beta1")
    assert draft.problem("optimizer.optimizer") == ""
    draft.set({"optimizer.beta1": 0.5})
    assert draft.problem("optimizer.beta1") == ""
    assert draft.changes() == {"optimizer.beta1": 0.5, "optimizer.optimizer": "LION"}
    assert draft.dirty
    draft.ok()
    assert session.revision == before + 1
    assert session.data["optimizer"] == {"beta1": 0.5, "optimizer": "LION"}


def test_a_window_sees_what_contradicts_the_rest_of_the_config(
    session: Session,
) -> None:
    session.open(written("a.json", right(optimizer={"optimizer": "PRODIGY"})))
    draft = WindowDraft(session, [KEY])
    draft.set({KEY: {"double_block_0": 0.5}})
    problem = draft.problem("optimizer.optimizer")
    assert "Prodigy cannot give blocks rates of their own" in problem
    assert "double_block_0 has 0.5" in problem
    session.set({"optimizer.optimizer": "ADAMW"})
    assert draft.checked.problems == ()
    assert draft.checked.plan
    assert draft.checked.plan.groups[0].multiplier == 0.5


def test_reset_brings_the_defaults_and_ok_takes_the_keys_out(session: Session) -> None:
    session.open(
        written(
            "a.json",
            right(optimizer={"beta1": 0.5, "eps": 1e-7}, **{KEY: {"other": 0.5}}),
        )
    )
    draft = WindowDraft(session, [KEY, "optimizer.beta1"])
    draft.set({"optimizer.beta1": 0.7})
    draft.reset()
    assert draft.changes() == {KEY: {}, "optimizer.beta1": None}
    draft.set({"optimizer.beta1": 0.5})
    assert draft.changes() == {KEY: {}}
    draft.ok()
    assert session.data == right(optimizer={"eps": 1e-7, "beta1": 0.5})


def test_a_window_put_back_as_it_was_changes_nothing(session: Session) -> None:
    session.open(written("a.json", right(epochs=3)))
    draft = WindowDraft(session, ["epochs", "seed"])
    before = session.revision
    heard = []
    draft.changed.subscribe(lambda: heard.append(draft.dirty))
    draft.set({"epochs": 4, "seed": 1})
    draft.set({"epochs": 3, "seed": 42})
    draft.ok()
    assert heard == [True, False]
    assert session.revision == before


def test_a_window_knows_that_its_values_were_changed_elsewhere(
    session: Session,
) -> None:
    draft = WindowDraft(session, ["epochs"])
    session.set({"seed": 1})
    assert not draft.stale
    draft.set({"epochs": 5})
    assert not draft.stale
    session.set({"epochs": 6})
    assert draft.stale
    draft.ok()
    assert session.get("epochs") == 5
