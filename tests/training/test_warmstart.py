"""What is imported is what the first version starts from, in every replay; what cannot be says what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from trainers import parameters, trainer_of

from headrace import clock
from headrace.errors import ImportRefused
from headrace.ids import id_of, unknown_id
from headrace.version import VersionRecord, rollback_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.xdist_group("tensorflow"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras"),  # Keras 3.15 on numpy 2.4
]

NEVER = {"train": {"checkpoint_every_s": 1e9, "snapshot_every": 10**6}}
USERS = [str(user) for user in range(40)]
TRUTH = np.log(np.where(np.arange(40) % 4 == 0, 0.7 / 0.3, 0.1 / 0.9)) - np.log(0.2 / 0.8)
"""What the label of the made-up examples depends on (tests/training/conftest.py), as a weight beside the prior."""


def keras_model(path: Path, width: int = 8, *, oov: int = 1, mask: str | None = None) -> np.ndarray:
    """A model with a layer of the users' weights and one of rows `width` wide; the latter's rows."""
    from training.runtime import tf  # before Keras: it sets threads

    keras = tf.keras
    user = keras.Input((), dtype="string", name="user")
    lookup = keras.layers.StringLookup(vocabulary=USERS, num_oov_indices=oov, mask_token=mask, name="user_lookup")
    extra = oov + (mask is not None)
    weight = keras.layers.Embedding(40 + extra, 1, name="user_weight")
    rows = keras.layers.Embedding(40 + extra, width, name="user_rows")
    at = keras.layers.Reshape((1,))(lookup(user))
    out = keras.layers.Dense(1)(keras.layers.Concatenate()([weight(at), rows(at)]))
    numbers = keras.layers.Embedding(9, 8, name="numbered")(keras.Input((), dtype="int64", name="number"))
    hashed = keras.layers.Hashing(5, name="buckets")(keras.Input((), dtype="string", name="hashed"))
    model = keras.Model([user, numbers._keras_history.operation.input, hashed._keras_history.operation.input],
                        [out, numbers, keras.layers.Embedding(5, 8, name="bucketed")(hashed),
                         keras.layers.Embedding(42 + extra, 8, name="moved")(lookup(user) + 1)])  # fmt: skip
    drawn = np.random.default_rng(3).normal(0, 0.1, (40 + extra, width)).astype(np.float32)
    rows.set_weights([drawn])
    weight.set_weights([np.concatenate([np.zeros(extra), TRUTH]).astype(np.float32)[:, None]])
    if path.suffix == ".keras":
        model.save(path)
    else:
        model.export(path, verbose=False)
    return drawn


def imported(feed: Any, path: Path, *pairs: tuple[str, str], **vocabularies: list[str]) -> Any:
    from training.kerasrows import layers_of
    from training.warmstart import begin, taken

    layers = layers_of(path)
    layers |= {name: layers[name].named(lines, "words.txt") for name, lines in vocabularies.items()}
    parts = taken(layers, feed.settings, pairs)
    return begin(feed.loop, feed.settings, parts, model=str(path), by="a test", now_us=clock.now_us())


def version(feed: Any, number: int) -> VersionRecord:
    return VersionRecord.from_entry(feed.loop.version_log().read(number))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "old.keras"
    keras_model(path)
    return path


def test_the_first_version_starts_from_the_rows_and_scores_better(feed: Any, model: Path) -> None:
    losses = {}
    for warm in (True, False):
        loop = feed("mlp", **NEVER)
        if warm:
            entry = imported(loop, model, ("user_weight", "user"), ("user_rows", "user"))
            assert (entry.kind, entry.seq) == ("start", 0)
        loop.rows(400)
        assert trainer_of(loop).step().kind == "delta"
        losses[warm] = version(loop, 1).evaluation["live"]["log_loss"]  # of each row before it was learned
    assert losses[True] < losses[False] - 0.03


def test_rows_that_no_event_had_are_published_as_they_are(feed: Any, model: Path, tmp_path: Path) -> None:
    from headrace.delta import decode_rows
    from training.kerasrows import layers_of

    loop = feed("mlp", train={"encoding": "f32", "checkpoint_every_s": 1e9})
    imported(loop, model, ("user_rows", "tags"))  # no event has these tags
    loop.rows(60)
    trainer = trainer_of(loop)
    trainer.step()
    table = trainer._live.published
    ids = np.array([id_of("tags", text) for text in USERS])
    scale, rows, found = table.lookup("embedding", ids)
    assert found.all()
    spec = next(spec for spec in table.specs if spec.name == "embedding")
    np.testing.assert_array_equal(decode_rows(scale, rows, spec), layers_of(model)["user_rows"].rows[1:])
    assert version(loop, 1).digest == table.digest().to_json()


@pytest.mark.parametrize("named", [True, False])
def test_a_replay_starts_from_the_same_rows(feed: Any, model: Path, monkeypatch: Any, named: bool) -> None:
    """Twin: without the checkpoint in the start record, recovery begins with nothing and gives other bits."""
    loop = feed("dcn_v2", **NEVER)
    imported(loop, model, ("user_weight", "user"), ("user_rows", "user"))
    trainer = trainer_of(loop)
    for _ in range(2):
        loop.rows(80)
        trainer.step()
    assert version(loop, 2).checkpoint.of == 0
    if not named:
        from training import live as module

        plan_of = module.plan_of
        monkeypatch.setattr(module, "plan_of", lambda at, read: replace(plan_of(at, read), checkpoint=None))
    assert (parameters(trainer_of(loop)) == parameters(trainer)) == named


def test_back_to_the_start_is_back_to_the_imported_rows(feed: Any, model: Path) -> None:
    loop = feed("lr", **NEVER)
    imported(loop, model, ("user_weight", "user"))
    begun = parameters(trainer_of(loop))
    loop.rows(80)
    trainer = trainer_of(loop)
    trainer.step()
    trainer.close()
    log = loop.loop.version_log()
    back = rollback_of(version(loop, 1), 0, lambda at: version(loop, at), now_us=0, code="test")
    log.append(back.kind, back.to_body(), log.head())
    assert parameters(trainer_of(loop)) == begun


def test_rows_out_of_the_vocabulary_are_the_unknown_row_where_new_ids_wait(feed: Any, tmp_path: Path) -> None:
    drawn = keras_model(tmp_path / "m.keras", oov=2, mask="")
    for admission, expected in ((3, drawn[1:3].mean(0)), (1, None)):
        loop = feed("mlp", train={"admission": admission})
        imported(loop, tmp_path / "m.keras", ("user_rows", "user"))
        table = trainer_of(loop)._live.state.learner.tables["embedding"]
        row = table.index.find(np.array([unknown_id("user"), id_of("user", "0")]))
        np.testing.assert_array_equal(table.read(row[1:])[0], drawn[3])
        if expected is None:
            assert row[0] == -1
        else:
            np.testing.assert_allclose(table.read(row[:1])[0], expected, atol=1e-7)


def test_a_saved_model_with_vocabulary_files(feed: Any, tmp_path: Path) -> None:
    drawn = keras_model(tmp_path / "saved")
    lines = {"as lookups count": USERS, "as get_vocabulary() gives them": ["[UNK]", *USERS]}
    for words in lines.values():
        loop = feed("mlp")
        imported(loop, tmp_path / "saved", ("user_rows", "user"), user_rows=words)
        table = trainer_of(loop)._live.state.learner.tables["embedding"]
        rows = table.index.find(np.array([id_of("user", text) for text in USERS]))
        np.testing.assert_array_equal(table.read(rows), drawn[1:])


@pytest.mark.parametrize(
    ("words", "spare", "first", "unknown"),
    [
        (["[UNK]", "a", "b"], 1, 1, (0,)),  # Embedding(len(get_vocabulary()) + 1, …)
        (["", "[UNK]", "[UNK]", "a"], 0, 3, (1, 2)),
        (["", "[UNK]", "a"], 1, 2, (1,)),
        (["", "a"], 0, 1, ()),
        (["a", "b"], 1, 1, (0,)),
        (["a", "b"], 0, 0, ()),
    ],
)
def test_a_line_of_a_vocabulary_file_is_the_row_that_its_lookup_gives(
    words: list[str], spare: int, first: int, unknown: tuple[int, ...]
) -> None:
    from training.kerasrows import Layer

    layer = Layer("emb", np.zeros((len(words) + spare, 2), np.float32)).named(words, "words.txt")
    texts = tuple(word for word in words if word not in ("", "[UNK]"))
    assert (layer.texts, layer.first, layer.unknown) == (texts, first, unknown)


@pytest.mark.parametrize(
    ("words", "spare", "said"),
    [
        (["a", "[UNK]"], 0, r"line 2 of words\.txt is '\[UNK\]'"),
        (["[MASK]", "[UNK]", "a"], 0, "line 2"),
        (["-1", "7"], 1, "line 1 of words.txt is '-1'"),
        (["", "a"], 1, "line 1 of words.txt is ''"),
    ],
)
def test_a_vocabulary_file_that_says_two_things_is_refused(words: list[str], spare: int, said: str) -> None:
    from training.kerasrows import Layer

    with pytest.raises(ImportRefused, match=said) as refused:
        Layer("emb", np.zeros((len(words) + spare, 2), np.float32)).named(words, "words.txt")
    assert "what get_vocabulary() gives" in refused.value.hint


def test_rows_are_named_by_a_lookup_only_where_the_model_reads_its_places_as_they_are(tmp_path: Path) -> None:
    """Against the model itself: the row of a text is what the model answers to it."""
    from training.kerasrows import layers_of
    from training.runtime import tf

    keras = tf.keras
    ops = keras.ops
    text, other = (keras.Input((), dtype="string", name=name) for name in ("text", "other"))
    lookup = keras.layers.StringLookup(vocabulary=["a", "b", "c"], name="places")
    hot = keras.layers.StringLookup(vocabulary=["a", "b", "c"], output_mode="multi_hot", name="hot")
    second = keras.layers.StringLookup(vocabulary=["q", "r", "s"], name="second")
    shaped = keras.layers.Reshape((1,), name="shape")
    read = {
        "plain": [lookup(text)],
        "shaped": [shaped(lookup(text))],
        "shaped_too": [shaped(second(other))],  # by the same layer
        "dropped": [keras.layers.Dropout(0.5)(keras.layers.Flatten()(shaped(lookup(text))))],
        "whole": [ops.cast(ops.expand_dims(lookup(text), 1), "int32")],
        "twice": [lookup(text), lookup(other)],
        "joined": [keras.layers.Concatenate()([shaped(lookup(text)), shaped(lookup(other))])],
        "added": [lookup(text) + 1],
        "odd": [ops.mod(lookup(text), 2)],
        "least": [ops.minimum(lookup(text), 2)],
        "back": [5 - lookup(text)],
        "hots": [hot(text)],
        "behind": [keras.layers.Reshape((1,))(lookup(text) + 1)],
        "two": [lookup(text), second(other)],
        "both": [keras.layers.Concatenate()([shaped(lookup(text)), shaped(second(other))])],
        "given": [lookup(text), keras.Input((), dtype="int64", name="number")],
    }
    layers = {name: keras.layers.Embedding(8, 2, name=name) for name in read}
    outputs = {name: [layers[name](one) for one in ones] for name, ones in read.items()}
    model = keras.Model([text, other, read["given"][1]], outputs)
    model.save(tmp_path / "m.keras")
    answers = keras.Model([text, other], [outputs[name][0] for name in read])(
        [tf.constant(["a", "b", "c"]), tf.constant(["q", "r", "s"])]
    )
    found = layers_of(tmp_path / "m.keras")
    named = {name for name, layer in found.items() if layer.texts is not None}
    assert named == {"plain", "shaped", "shaped_too", "dropped", "whole", "twice", "joined"}
    for name, answer in zip(read, answers, strict=True):
        if name in named:
            rows = np.reshape(answer, (3, -1))[:, :2]
            np.testing.assert_array_equal(rows, found[name].rows[found[name].first :], err_msg=name)
    assert "what 'places' and 'second' make" in found["two"].why
    assert "what 'hot' makes" in found["hots"].why
    assert all(found[name].nameable and found[name].why for name in read if name not in named)


def test_numbers_in_a_nested_model(feed: Any, tmp_path: Path) -> None:
    from training.kerasrows import layers_of
    from training.runtime import tf

    keras = tf.keras
    inner = keras.Sequential(
        [
            keras.Input((), dtype="int64"),
            keras.layers.IntegerLookup(vocabulary=[70, 5]),
            keras.layers.Embedding(3, 8, name="inner"),
        ]
    )
    outer = keras.Input((), dtype="int64")
    keras.Model(outer, keras.layers.Dense(1)(inner(outer))).save(tmp_path / "nested.keras")
    layer = layers_of(tmp_path / "nested.keras")["inner"]
    assert (layer.texts, layer.unknown, layer.first) == (("70", "5"), (0,), 1)
    loop = feed("mlp")
    imported(loop, tmp_path / "nested.keras", ("inner", "item"))
    table = trainer_of(loop)._live.state.learner.tables["embedding"]
    rows = table.index.find(np.array([id_of("item", "70"), id_of("item", "5")]))
    np.testing.assert_array_equal(table.read(rows), layer.rows[1:])


def test_until_something_is_learned_one_may_import_again(feed: Any, model: Path) -> None:
    loop = feed("mlp")
    imported(loop, model, ("user_weight", "user"))
    assert imported(loop, model, ("user_rows", "user")).seq == 1
    loop.rows(30)
    trainer = trainer_of(loop)
    assert trainer.record.version == 1
    trainer.step()
    with pytest.raises(ImportRefused, match="has learned already: it is at version 2"):
        imported(loop, model, ("user_rows", "user"))


@pytest.mark.parametrize(
    ("pairs", "kind", "message", "hint"),
    [
        ([("user_row", "user")], "mlp", "no Embedding layer 'user_row'", "did you mean 'user_rows'?"),
        ([("user_rows", "usr")], "mlp", "no feature 'usr'", "did you mean 'user'?"),
        ([("user_rows", "price")], "mlp", "'price' is a number", "kind id"),
        ([("user_rows", "user_item")], "mlp", "'user_item' is a cross", "kind id"),
        ([("user_rows", "user")], "lr", "have 8 numbers, those of feature 'user' 1", "dim = 8 in [model]"),
        ([("numbered", "user")], "mlp", "have no texts: the model has no words", "--vocabulary numbered=FILE"),
        ([("bucketed", "user")], "mlp", "buckets of 'buckets'", "map another layer"),
        ([("moved", "user")], "mlp", "reads what 'add", "--vocabulary moved=FILE"),
        ([("user_rows", "user"), ("user_rows", "user")], "mlp", "both be the rows of 'user'", "map one"),
    ],
)
def test_refusals(feed: Any, model: Path, pairs: Any, kind: str, message: str, hint: str) -> None:
    loop = feed(kind)
    with pytest.raises(ImportRefused) as refused:
        imported(loop, model, *pairs)
    assert message in refused.value.message
    assert hint in refused.value.hint
    assert loop.loop.version_log().head() is None


def test_other_widths_and_files_that_do_not_fit(feed: Any, model: Path, tmp_path: Path) -> None:
    loop = feed("mlp", model={"dim": 16})
    with pytest.raises(ImportRefused, match="have 8 numbers, those of feature 'user' 16") as refused:
        imported(loop, model, ("user_rows", "user"))
    assert refused.value.hint == "set dim = 8 in [model]"
    with pytest.raises(ImportRefused, match=r"41 rows, but words\.txt has 7 lines"):
        imported(loop, model, ("user_rows", "user"), user_rows=USERS[:7])
    with pytest.raises(ImportRefused, match="has 'a' twice"):
        imported(feed("mlp"), model, ("user_rows", "user"), user_rows=["a", "a", *USERS[2:]])


def test_what_is_no_model(tmp_path: Path) -> None:
    from training.kerasrows import layers_of

    (tmp_path / "broken.keras").write_bytes(b"x")
    (tmp_path / "model.txt").write_text("x")
    for name, message in {
        "none.keras": "there is no",
        "broken.keras": "Keras cannot load",
        "model.txt": "is no Keras archive",
        ".": "it has no saved_model.pb",
    }.items():
        with pytest.raises(ImportRefused, match=message) as refused:
            layers_of(tmp_path / name)
        assert refused.value.hint


def test_a_model_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    from training.kerasrows import layers_of
    from training.runtime import tf

    keras, ran = tf.keras, []
    text = keras.Input((), dtype="string")
    rows = keras.layers.Embedding(2, 8)(keras.layers.StringLookup(vocabulary=["a"])(text))
    keras.Model(text, keras.layers.Lambda(lambda x: ran.append(1) or x)(rows)).save(tmp_path / "lambda.keras")
    ran.clear()
    with pytest.raises(ImportRefused, match="arbitrary code") as refused:
        layers_of(tmp_path / "lambda.keras")
    assert ran == []
    assert "needs no code of its own" in refused.value.hint


def test_an_export_of_headrace_is_no_model_of_texts(feed: Any, tmp_path: Path) -> None:
    from training.export import export

    loop = feed("mlp")
    loop.rows(60)
    trainer_of(loop).step()
    export(loop.loop, None, tmp_path / "own.keras", "keras", force=False, say=str)
    with pytest.raises(ImportRefused, match="a table of a headrace export"):
        imported(feed("mlp"), tmp_path / "own.keras", ("embedding.rows", "user"))
