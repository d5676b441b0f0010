"""Faults 32, 33, 34 and 39 on the side of the spec: hostile YAML, its traps, and names of every
kind."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunesvc.errors import SpecError
from tunesvc.spec import StudySpec
from tunesvc.spec.yaml.document import load, parse, spec_from_dict

STUDY = """\
name: study
entrypoint: train:main
metric: loss
budget: 10
parameters:
  x: {min: 0.0, max: 1.0}
"""


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse(text)
    return str(caught.value)


def values_of(written: str) -> tuple[object, ...]:
    """Return the values that `values: [...]` are read as."""
    parameter = parse(STUDY + f"  c: {{values: [{written}]}}\n").parameters["c"]
    return parameter.values  # type: ignore[union-attr]


# --- 32: tags, alias bombs, duplicate keys
# -----------------------------------------------------------

BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "tags: !!python/object/apply:os.system ['id']",
            "study.yaml:7:7: tags (`tag:yaml.org,2002:python/object",
        ),
        ("description: !!str text", "study.yaml:7:14: tags"),
        ("description: !local text", "study.yaml:7:14: tags (`!local`) are refused"),
        (
            "description: &a text",
            "study.yaml:7:14: anchors (`&a`) are refused: write the value out",
        ),
        ("tags: [*a]", "study.yaml:7:8: aliases (`*name`) are refused: write the value out"),
        ("constants: {<<: *a}", "study.yaml:7:17: aliases"),
        (BOMB, "study.yaml:8:4: anchors"),
        ("name: twice", "study.yaml:7:1: duplicate key `name`: it is on line 1 already"),
        ("constants: {a: 1, a: 2}", "study.yaml:7:19: duplicate key `a`: it is on line 7 already"),
        ("? [a, b]\n: 1", "study.yaml:7:3: a key must be text"),
        ("constants: {? {a: 1} : 2}", "study.yaml:7:15: a key must be text"),
        ("---\nname: other", "study.yaml:7:1: a study file holds one document"),
        ("\tname: x", "study.yaml:7:1: this is not YAML: "),
        ("a: b: c", "study.yaml:7:5: this is not YAML: a `: ` where no key can be"),
        ("a: [1", "study.yaml:8:1: this is not YAML: "),
        ("a: @x", "study.yaml:7:4: this is not YAML: "),
        ("%YAML 9.9\n---\na: 1", "study.yaml:7:1: this is not YAML: "),
    ],
)
def test_yaml_that_a_study_does_not_need_is_refused_with_file_line_and_column(
    text: str, expected: str
) -> None:
    """Fault 32."""
    assert expected in refusal(STUDY + text + "\n")


def test_an_alias_bomb_is_refused_as_fast_as_it_is_read() -> None:
    """Fault 32: nothing is expanded, so a bomb of any size costs what its text costs."""
    assert refusal(STUDY + BOMB).count("aliases") == 80


def test_no_code_of_the_file_is_run(tmp_path: Path) -> None:
    """Fault 32."""
    made = tmp_path / "made"
    refusal(STUDY + f"description: !!python/object/apply:pathlib.Path.touch ['{made}']\n")
    assert not made.exists()


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "just text", "- a\n- b", "42", "null"])
def test_a_file_that_is_no_mapping_is_no_study(text: str) -> None:
    """Fault 32."""
    assert "no study: write keys such as `name:`" in refusal(text)


# --- 33: huge and deep
# -------------------------------------------------------------------------------


def test_a_file_of_100_mb_is_refused_without_being_read(tmp_path: Path) -> None:
    """Fault 33: only one byte more than the limit is read."""
    huge = tmp_path / "study.yaml"
    with huge.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(
        SpecError, match=r"study\.yaml has 100\.0 MB; a study file has at most 256 kB"
    ):
        load(huge)


def test_text_past_the_limit_is_refused_too() -> None:
    """Fault 33."""
    assert "has 2.0 MB" in refusal("#" * 2_000_000)


@pytest.mark.parametrize(
    "deep",
    [
        "constants: " + "[" * 50_000,
        "constants: " + "{a: " * 50_000,
        "constants:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, 600)),
        "constants:\n  " + "- " * 50_000,
        "constants:\n  " + "? " * 50_000,
    ],
)
def test_deep_nesting_is_refused_before_anything_recurses(deep: str) -> None:
    """Fault 33."""
    assert "nested more than 20 levels deep" in refusal(STUDY + deep)


def test_the_largest_honest_file_is_read() -> None:
    """Fault 33: the limit is above what people write."""
    values = ", ".join(str(number) for number in range(20_000))
    assert len(values_of(values)) == 20_000


def test_conditions_upon_conditions_end_before_the_stack_does() -> None:
    """Fault 33: a chain of a thousand `when`."""
    chain = "".join(f"  p{n}: {{min: 0, max: 1, when: {{p{n + 1}: 1}}}}\n" for n in range(1000))
    assert "conditions are nested more than 50 deep" in refusal(
        STUDY + chain + "  p1000: {min: 0, max: 1}\n"
    )


# --- 34: 1e-3, no, 1:30, .5
# --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("+1.5e+3", 1500.0),
        (".5", 0.5),
        ("-.5e-1", -0.05),
        ("1.", 1.0),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("0x1F", 31),
        ("0o17", 15),
        ("-7", -7),
        ("0", 0),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("OFF", "OFF"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("1:30", "1:30"),
        ("2026-11-23", "2026-11-23"),
        ("8_16", "8_16"),
        ("1.2.3", "1.2.3"),
        ("٣", "٣"),
        ("'1e-3'", "1e-3"),
        ('"010"', "010"),
        ("=", "="),
    ],
)
def test_a_plain_value_is_read_as_it_is_meant(written: str, meant: object) -> None:
    """Fault 34."""
    (value,) = values_of(written)
    assert (value, type(value)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("010", "`010` is octal to some readers: write 10, or put it in quotes"),
        ("-007", "`-007` is octal to some readers: write -7"),
        (".nan", "`.nan` is not a finite number"),
        ("-.inf", "`-.inf` is not a finite number"),
        ("1e999", "`1e999` is too large a number"),
        ("9" * 30, "is too large a number"),
        ("9" * 5000, "a number of 5000 characters is too long"),
    ],
)
def test_a_value_that_readers_disagree_on_is_refused(written: str, expected: str) -> None:
    """Fault 34."""
    with pytest.raises(SpecError) as caught:
        values_of(written)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "limits: {wall: 1:30}",
            "limits.wall: '1:30' is not a duration: write 90s, 15m, 12h, 3d or 1h30m",
        ),
        ("parallelism: 1:30", "parallelism: needs a whole number, found text '1:30'"),
        ("parallelism: no", "parallelism: needs a whole number, found text 'no'"),
        ("parallelism: true", "parallelism: needs a whole number, found true"),
        ("seed: 1e-3", "seed: needs a whole number, found 0.001"),
        ("description: 1e-3", "description: needs text, found 0.001: put it in quotes"),
        ("cluster: 2026", "cluster: needs text, found 2026: put it in quotes"),
    ],
)
def test_a_value_of_the_wrong_kind_is_a_typed_error(line: str, expected: str) -> None:
    """Fault 34: never a silent string or boolean."""
    assert expected in refusal(STUDY + line)


def test_bounds_may_be_written_in_any_of_these_ways() -> None:
    """Fault 34."""
    parameter = parse(STUDY + "  y: {type: float, min: 1e-3, max: .5}\n").parameters["y"]
    assert (parameter.min, parameter.max) == (0.001, 0.5)  # type: ignore[union-attr]


def test_names_that_yaml_1_1_takes_for_booleans_stay_names() -> None:
    """Fault 34."""
    spec = parse(
        STUDY
        + "  no: {values: [1, 2]}\n  on: {values: [1, 2], when: {no: 1}}\n  7: {values: [1, 2]}\n"
    )
    assert list(spec.parameters) == ["x", "no", "on", "7"]


# --- 39: unicode, bidi, NUL, 600 characters
# ----------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["naïve", "学习率", "ضریب", "lr 💡", "a/b;c'd\"e", "x" * 200, "${lr}", "<b>x</b>", "--json"],
)
def test_names_of_any_script_are_kept(name: str) -> None:
    """Fault 39."""
    spec = parse(
        STUDY.replace("name: study", f"name: {json.dumps(name)}")
        + f"  {json.dumps(name)}: {{values: [1]}}\n"
    )
    assert spec.name == name
    assert list(spec.parameters) == ["x", name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "must not be empty"),
        ("x" * 600, "has 600 characters; at most 200"),
        ("a\x00b", "cannot be stored: it holds U+0000 at character 2"),
        ("a\ud800", "cannot be stored: it holds "),
        (
            "evil\u202egpj",
            "is a name, and holds the invisible U+202E RIGHT-TO-LEFT OVERRIDE at character 5",
        ),
        ("a\nb", "is a name, and holds the invisible U+000A at character 2"),
        ("\x1b[31mred", "is a name, and holds the invisible U+001B at character 1"),
        (" a", "has space around it: remove it"),
    ],
)
def test_a_name_that_cannot_be_stored_or_shown_is_refused_with_the_reason(
    name: str, expected: str
) -> None:
    """Fault 39: as a study's name, a parameter's and a metric's, in files and from Python."""
    written = json.dumps(name)
    for text in (
        STUDY.replace("name: study", f"name: {written}"),
        STUDY.replace("metric: loss", f"metric: {written}"),
        STUDY + f"  {written}: {{values: [1]}}\n",
    ):
        message = refusal(text)
        assert expected in message or "a key must be" in message
        assert all(char.isprintable() for char in message.replace("\n", ""))
    with pytest.raises(SpecError):
        spec_from_dict({"name": name, "metric": "loss", "budget": 1}, function=dict)


@pytest.mark.parametrize("raw", ["\x00", "\x07", "\x1b[2J", "\x7f", "\ufffe", "\ud800"])
def test_control_characters_in_a_file_are_refused_with_their_place(raw: str) -> None:
    """Fault 39."""
    assert (
        f"study.yaml:7:17: control characters and lone surrogates are refused: found U+{ord(raw[0]):04X}"
        in refusal(STUDY + f"description: abc{raw}def")
    )


def test_bytes_that_are_no_utf_8_are_refused_with_their_place(tmp_path: Path) -> None:
    """Fault 39."""
    (tmp_path / "study.yaml").write_bytes(b"name: x\ndescription: caf\xe9\n")
    with pytest.raises(
        SpecError, match=r"study\.yaml:2:17: is not UTF-8 \(byte 0xe9\): save the file as UTF-8"
    ):
        load(tmp_path / "study.yaml")


@given(name=st.text(max_size=600))
@example("\u2028")
def test_a_name_is_kept_as_it_is_or_clearly_refused(name: str) -> None:
    """Fault 39."""
    data = {"name": name, "metric": "loss", "budget": 1, "parameters": {name: {"values": [name]}}}
    try:
        spec = spec_from_dict(data, function=dict)
    except SpecError:
        return
    assert spec.name == name
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in name)


# --- whatever else
# -----------------------------------------------------------------------------------

YAML_PIECES = st.sampled_from(
    [
        *"[]{},:-?&*!|>%@`'\"# \n\t~",
        *[
            "name",
            "metric",
            "parameters",
            "budget",
            "values",
            "min",
            "when",
            "type",
            "x",
            "x: ",
            "\n  ",
            "\n- ",
            "\\x00",
        ],
        *[
            "1e-3",
            "010",
            ".inf",
            "null",
            "true",
            "float",
            "---\n",
            "...\n",
            "!!",
            "<<: ",
            '"\\U00110000"',
            "%YAML 1.1\n",
        ],
        *[
            "entrypoint: a:b\n",
            "budget: 1\n",
            "metric: m\n",
            "command: ",
            "sampler: ",
            "constants: ",
            "\u2028",
            "\ufeff",
        ],
    ]
)


@settings(max_examples=150)
@given(text=st.text() | st.lists(YAML_PIECES, max_size=40).map("".join))
@example('"\\U00110000"')
@example('a: "\\ud800"')
@example("%YAML " + "9" * 5000 + ".1\n---\n")
@example(f"{STUDY}resources: {{memory: {'9' * 400}GB}}")
@example(f"{STUDY}limits: {{wall: {'9' * 400}d}}")
def test_any_text_is_a_study_or_a_spec_error(text: str) -> None:
    """Faults 32 to 39: nothing but `SpecError` comes out, and its text can be printed."""
    try:
        parse(text)
    except SpecError as error:
        str(error).encode("utf-8")


@settings(max_examples=100)
@given(lines=st.lists(YAML_PIECES, max_size=8).map("".join), at=st.integers(0, len(STUDY)))
def test_a_study_with_anything_put_into_it_is_a_study_or_a_spec_error(lines: str, at: int) -> None:
    """Faults 32 to 39."""
    try:
        parse(STUDY[:at] + lines + STUDY[at:])
    except SpecError as error:
        str(error).encode("utf-8")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*StudySpec.model_fields, "metric", "other"])


@settings(max_examples=100)
@given(data=st.dictionaries(KEYS, JSON, max_size=6))
def test_any_data_is_a_study_or_a_spec_error(data: dict[str, object]) -> None:
    """Faults 34 and 39, for the Python API."""
    base: dict[str, object] = {"name": "x", "entrypoint": "a:b", "metric": "m", "budget": 1}
    try:
        spec = spec_from_dict(base | data)
    except SpecError:
        return
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec
