"""Holds a recorded history of one study against its database: the invariants I1 to I7.

    I1  one terminal state per trial         I4  no budget is exceeded
    I2  at most one live attempt per trial   I5  every write carries (trial, attempt, token) and is guarded by it
    I3  every acknowledged report is         I6  fail and requeue are one transaction
        present, once                        I7  an attempt starts from the last recorded checkpoint
                                                 of its trial, a copy from a recorded one

The committed batches are replayed, one after the other, over a model of the study: what each of
them may do is checked, what each new coordinator found is compared with the model, and so is the
database in the end. A batch whose answer was lost has taken effect if the next coordinator, or the
database, shows it.

`violations` is pure, so that hand-made histories can show that every invariant can be found broken.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import number_of
from tunesvc.spec import StudySpec

Record = Mapping[str, Any]
Key = tuple[int, int]
"""Trial number and attempt number."""

LIVE = ("opened", "running")
OVER = ("complete", "pruned", "fail")
NOT_WRITTEN = ("LeaseLost", "FailpointReached")
"""Errors of a commit that certainly wrote nothing; after any other its outcome is unknown."""


@dataclass(frozen=True)
class Stored:
    """Final content of the database."""

    trials: Mapping[int, str]
    attempts: Mapping[Key, tuple[str, str | None, int]]
    """State, failure, cursor."""
    reports: Sequence[tuple[int, int, int]] = ()
    """Trial number, attempt, step."""
    spec: StudySpec = field(default_factory=make_spec)
    state: str = "running"
    lease: tuple[int, int] = (0, 0)
    """Token, and number of the last batch."""
    parents: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Copy of another trial -> that trial, and the step of its checkpoint."""
    thinned: frozenset[Key] = frozenset()
    """Attempts whose log says that reports were left out."""


def check(folder: Path, database: Database) -> list[str]:
    """Every violation of every study, in words.

    Processes that are still alive may go on writing.
    """
    records = read(folder)
    studies = {record["study"] for record in records if record["op"] == "lease"}
    if not studies:
        raise ValueError(f"{folder} holds the history of no study")
    found: list[str] = []
    for study in studies:
        own = [record for record in records if _study_of(record) == study]
        found += violations(own, stored(database, study))
    return found


def _study_of(record: Record) -> int | None:
    if "study" in record:
        return int(record["study"])
    attempts = [record["attempt"]] if "attempt" in record else record.get("cursors", [])
    return int(attempts[0][0]) >> 32 if attempts else None


def assert_holds(folder: Path, database: Database) -> None:
    """Fail with all violations."""
    found = check(folder, database)
    assert not found, "\n".join(found)


def read(folder: Path) -> list[Record]:
    """All records by time.

    A process that was killed may have left half a line at the end of its file.
    """
    records: list[Record] = []
    for path in folder.glob("*.jsonl"):
        *lines, rest = path.read_text(encoding="utf-8").split("\n")
        del rest
        records += [json.loads(line) for line in lines]
    return sorted(records, key=lambda record: record["at"])


def stored(database: Database, study_id: int) -> Stored:
    """The study as it is in the database now."""
    mine = f"trial_id BETWEEN {study_id << 32} AND {(study_id << 32) + 2**32 - 1}"
    with database.engine.connect() as connection:

        def rows(sql: str) -> Sequence[Any]:
            return connection.execute(sa.text(sql)).all()

        attempts = rows(
            f"SELECT trial_id, number, state, failure, cursor FROM attempts WHERE {mine}"
        )
        reports = rows(f"SELECT trial_id, attempt, step FROM reports WHERE {mine}")
        parents = rows(
            f"SELECT trial_id, value FROM trial_attrs WHERE {mine} AND name = 'tunesvc:parent'"
        )
        thinned = rows(
            f"SELECT DISTINCT trial_id, attempt FROM logs WHERE {mine} AND text LIKE '%and were left out]%'"
        )
        study = rows(f"SELECT spec, state FROM studies WHERE study_id = {study_id}")[0]
        return Stored(
            trials=dict(
                tuple(row)
                for row in rows(f"SELECT number, state FROM trials WHERE study_id = {study_id}")
            ),
            attempts={(number_of(row[0]), row[1]): tuple(row[2:]) for row in attempts},
            reports=[(number_of(row[0]), row[1], row[2]) for row in reports],
            spec=StudySpec.model_validate_json(json.dumps(study.spec)),
            state=study.state,
            parents={
                number_of(row[0]): (json.loads(row[1])["trial"], json.loads(row[1])["step"])
                for row in parents
            },
            lease=tuple(rows(f"SELECT token, batch FROM leases WHERE study_id = {study_id}")[0]),
            thinned=frozenset((number_of(row[0]), row[1]) for row in thinned),
        )


def violations(records: Sequence[Record], end: Stored) -> list[str]:
    """Every violation, in words."""
    commits = [record for record in records if record["op"] == "commit"]
    replay = Replay(records, end)
    found = [*_fencing(records, commits), *replay.run(_batches(commits))]
    found += _acknowledged(records, replay)
    found += _ran_once(records, replay)
    found += _said(records, end)
    return [*found, *_budgets(end), *_retried(replay, end)]


# --- batches
# ----------------------------------------------------------------------------------------


@dataclass
class Written:
    """A batch that was tried to be committed, once or several times."""

    token: int
    number: int
    content: Record
    began: float
    ended: float = float("inf")
    """When it was known to be committed."""
    outcome: str = "unknown"
    """`ok`, `failed` or `unknown`, over all tries."""

    def __str__(self) -> str:
        return f"batch {self.token}.{self.number}"


def _batches(commits: Sequence[Record]) -> list[Written]:
    """By token and number. A try that was refused says nothing about the tries before it."""
    batches: dict[Key, Written] = {}
    tries: dict[Key, list[str]] = defaultdict(list)
    for record in commits:
        key = record["token"], record["batch"]
        batch = batches.setdefault(key, Written(*key, record, record["at"]))
        if record["phase"] == "begin":
            tries[key].append("unknown")
        elif record["phase"] == "ok":
            tries[key][-1] = "ok"
            batch.ended = min(batch.ended, record["at"])
        elif record["error"] in NOT_WRITTEN:
            tries[key][-1] = "failed"
    for key, batch in batches.items():
        batch.outcome = next(
            outcome for outcome in ("ok", "unknown", "failed") if outcome in tries[key]
        )
    return [batches[key] for key in sorted(batches)]


def _fencing(records: Sequence[Record], commits: Sequence[Record]) -> Iterator[str]:
    """I5: a coordinator that has lost the lease writes nothing more."""
    leased: dict[int, float] = {}
    newest = 0
    began: dict[tuple[int, int, int], Record] = {}
    for record in records:
        if record["op"] == "lease":
            if record["token"] in leased:
                yield f"I5: token {record['token']} was given out twice"
            leased[record["token"]] = record["at"]
            newest = max(newest, record["token"])
    successes: list[tuple[float, int, int]] = []
    for record in commits:
        attempt = record["pid"], record["token"], record["batch"]
        if record["phase"] == "begin":
            began[attempt] = record
        elif record["phase"] == "ok":
            token, began_at = record["token"], began[attempt]["at"]
            if token not in leased:
                yield f"I5: token {token} wrote and was never given out"
            for other, at in leased.items():
                if other > token and at < began_at:
                    yield f"I5: batch {token}.{record['batch']} was committed after token {other} was given out"
            successes.append((record["at"], token, record["batch"]))
    numbers: dict[int, int] = defaultdict(int)
    for _, token, number in successes:
        if number != numbers[token] + 1:
            yield f"I5: batch {token}.{number} followed {token}.{numbers[token]}"
        numbers[token] = number


def _is_late(recovery: Record, records: Sequence[Record]) -> bool:
    """Return whether another coordinator had the lease by then: rows may be its work, and nothing
    follows from them."""
    return any(
        record["op"] == "lease"
        and record["token"] > recovery["token"]
        and record["at"] < recovery["at"]
        for record in records
    )


# --- the model
# --------------------------------------------------------------------------------------


@dataclass
class Attempt:
    """An attempt of the model."""

    token: int
    state: str = "opened"
    failure: str | None = None
    cursor: int = 0
    opened_by: Written | None = None
    ended_by: Written | None = None


class Replay:
    """A study as its committed batches make it."""

    def __init__(self, records: Sequence[Record], end: Stored) -> None:
        self.trials: dict[int, str] = {}
        self.attempts: dict[Key, Attempt] = {}
        self.reports: dict[tuple[int, int, int], Written] = {}
        self.cursors: dict[Key, list[tuple[float, int]]] = defaultdict(list)
        """When which cursor was recorded."""
        self.finished: dict[int, Written] = {}
        self.requeued: dict[int, Written] = {}
        self.checkpoints: dict[int, list[int]] = defaultdict(list)
        """Steps of a trial's recorded checkpoints, in order; -1 before the first report."""
        self.began_after: dict[Key, int] = {}
        self._found: list[str] = []
        recoveries = [
            record
            for record in records
            if record["op"] == "recover" and not _is_late(record, records)
        ]
        self._recoveries = {
            record["token"]: {
                number: [tuple(attempt) for attempt in attempts]
                for number, attempts in record["found"]
            }
            for record in recoveries
        }
        self._trials_found = {record["token"]: record["trials"] for record in recoveries}
        self._end = end

    def run(self, batches: Sequence[Written]) -> list[str]:
        """Replay, and compare with what was found on the way and in the end."""
        tokens = sorted({batch.token for batch in batches} | set(self._recoveries))
        for place, token in enumerate(tokens):
            if token in self._recoveries:
                self._compare_recovery(token)
            own = [batch for batch in batches if batch.token == token]
            later = next(
                (other for other in tokens[place + 1 :] if other in self._recoveries), None
            )
            for batch in own:
                if batch.outcome == "ok" or (
                    batch.outcome == "unknown" and self._shows(batch, later)
                ):
                    self._apply(batch)
        self._compare_end()
        return self._found

    def live(self, number: int) -> list[Key]:
        """The trial's live attempts."""
        return [
            key
            for key, attempt in self.attempts.items()
            if key[0] == number and attempt.state in LIVE
        ]

    # --- one batch

    def _apply(self, batch: Written) -> None:
        content = batch.content
        if content["adopts"]:
            for attempt in self.attempts.values():
                if attempt.state in LIVE:
                    attempt.token = batch.token
        for number in content["trials"]:
            self._expect(number not in self.trials, f"I1: {batch} made trial {number} once more")
            self.trials[number] = "unfinished"
        for number, attempt_number, *_ in content["started"]:
            if (own := self._own(batch, (number, attempt_number), "started")) is not None:
                own.state = "running"
        for number, attempt_number, step in content["reports"]:
            self._own(batch, (number, attempt_number), "reported for")
            self.reports.setdefault((number, attempt_number, step), batch)
        for number, attempt_number, cursor in content["cursors"]:
            if (own := self._own(batch, (number, attempt_number), "heard")) is not None:
                text = f"I3: {batch} moved the cursor of {number}.{attempt_number} from {own.cursor} to {cursor}"
                self._expect(cursor > own.cursor, text)
                own.cursor = cursor
                self.cursors[number, attempt_number].append((batch.began, cursor))
        for number, _, step in content.get("checkpoints", ()):
            self.checkpoints[number].append(-1 if step is None else step)
        self._apply_ends(batch)
        self._apply_openings(batch)
        self._apply_starts(batch)
        for number, state in content["finished"]:
            self._finish(batch, number, state)

    def _apply_ends(self, batch: Written) -> None:
        finished = {number for number, _ in batch.content["finished"]}
        retried = {number for number, kind in batch.content["decisions"] if kind == "retry"}
        for number, attempt_number, state, failure in batch.content["ends"]:
            own = self._own(batch, (number, attempt_number), "ended")
            if own is None:
                continue
            own.state, own.failure, own.ended_by = state, failure, batch
            if state in ("failed", "lost"):
                text = f"I6: {batch} ended {number}.{attempt_number} as {state}, and neither retried nor ended its trial"
                self._expect(number in finished | retried, text)
        for number in retried:
            self.requeued[number] = batch

    def _apply_openings(self, batch: Written) -> None:
        promoted = {number for number, kind in batch.content["decisions"] if kind == "promote"}
        opened = {number for number, *_ in batch.content["opened"]}
        for number in promoted:
            text = f"I6: {batch} promoted trial {number}, and opened no attempt of it"
            self._expect(number in opened, text)
        for number in opened:
            last = max((key for key in self.attempts if key[0] == number), default=None)
            paused = last is not None and self.attempts[last].state == "paused"
            text = f"I2: {batch} opened an attempt of trial {number}, promoted: {number in promoted}, paused: {paused}"
            self._expect(paused == (number in promoted), text)
        for number, attempt_number, _ in batch.content["opened"]:
            for live in self.live(number):
                self._found.append(
                    f"I2: {batch} opened {number}.{attempt_number} while {live} was live"
                )
            before = max((n for trial, n in self.attempts if trial == number), default=0)
            text = f"I2: {batch} opened attempt {attempt_number} of trial {number} after attempt {before}"
            self._expect(attempt_number == before + 1, text)
            self._expect(
                number in self.trials,
                f"I1: {batch} opened an attempt of trial {number}, which is none",
            )
            over = f"I1: {batch} opened {number}.{attempt_number}, though the trial was {self.trials.get(number)}"
            self._expect(self.trials.get(number) not in OVER, over)
            self.attempts[number, attempt_number] = Attempt(batch.token, opened_by=batch)
            self.requeued.pop(number, None)

    def _apply_starts(self, batch: Written) -> None:
        """I7: no attempt starts before what is recorded, nor from what is not."""
        if "checkpoints" not in batch.content:
            return
        for number, attempt_number, after_step in batch.content["opened"]:
            self.began_after[number, attempt_number] = after_step
            known = self.checkpoints[number]
            expected = known[-1] if known else self._end.parents.get(number, (None, -1))[1]
            text = f"I7: {batch} opened {number}.{attempt_number} after step {after_step}, not {expected}"
            self._expect(after_step == expected, text)
        for number in batch.content["trials"]:
            if number in self._end.parents:
                parent, step = self._end.parents[number]
                text = f"I7: {batch} made trial {number} a copy of {parent} at {step}, which is not recorded"
                self._expect(step in self.checkpoints[parent], text)
        if self._end.spec.search is not None:
            for number, attempt_number, step in batch.content["reports"]:
                after = self.began_after.get((number, attempt_number), -1)
                text = (
                    f"I7: {number}.{attempt_number} reported step {step}, and began after {after}"
                )
                self._expect(step > after, text)

    def _finish(self, batch: Written, number: int, state: str) -> None:
        before = self.trials.get(number)
        self._expect(
            before == "unfinished", f"I1: {batch} made trial {number} {state}, which was {before}"
        )
        self._expect(state in OVER, f"I1: {batch} ended trial {number} as {state}")
        for live in self.live(number):
            self._found.append(
                f"I2: {batch} finished trial {number} while its attempt {live} was live"
            )
        self.trials[number] = state
        self.finished[number] = batch
        self.requeued.pop(number, None)

    def _own(self, batch: Written, key: Key, verb: str) -> Attempt | None:
        """The attempt that a batch writes for, which must be live and under the batch's token."""
        attempt = self.attempts.get(key)
        if attempt is None:
            self._found.append(f"I5: {batch} {verb} {key}, which was never opened")
        elif attempt.token != batch.token:
            self._found.append(f"I5: {batch} {verb} {key}, which belongs to token {attempt.token}")
        elif attempt.state not in LIVE:
            self._found.append(f"I5: {batch} {verb} {key}, which was {attempt.state}")
        else:
            return attempt
        return None

    # --- comparisons

    def _shows(self, batch: Written, later: int | None) -> bool:
        """Return whether later records show that a batch of unknown outcome was committed, and as
        a whole."""
        evidence = list(
            self._traces_in_end(batch) if later is None else self._traces_in_recovery(batch, later)
        )
        shown = {there for _, there in evidence}
        if len(shown) > 1:
            parts = ", ".join(
                f"{what}: {'there' if there else 'missing'}" for what, there in evidence
            )
            self._found.append(f"I6: {batch} was written by half: {parts}")
        return any(shown)

    def _traces_in_recovery(self, batch: Written, later: int) -> Iterator[tuple[str, bool]]:
        """Return the rows of a batch that the next coordinator must have found."""
        found = self._recoveries[later]
        for number in batch.content["trials"]:
            yield f"trial {number} made", number < self._trials_found[later]
        finished = {number for number, _ in batch.content["finished"]}
        for number in finished:
            if self.trials.get(number) == "unfinished" and any(
                key[0] == number for key in self.attempts
            ):
                yield f"trial {number} finished", number not in found
        for number, attempt_number, *_ in batch.content["opened"]:
            there = any(attempt[0] == attempt_number for attempt in found.get(number, ()))
            yield f"{number}.{attempt_number} opened", there
        for number, attempt_number, cursor in batch.content["cursors"]:
            if number not in finished:
                there = any(
                    a[0] == attempt_number and a[2] >= cursor for a in found.get(number, ())
                )
                yield f"{number}.{attempt_number} heard up to {cursor}", there
        for number, attempt_number, *_ in batch.content["ends"]:
            if number not in finished:
                there = any(
                    a[0] == attempt_number and a[1] not in LIVE for a in found.get(number, ())
                )
                yield f"{number}.{attempt_number} ended", there

    def _traces_in_end(self, batch: Written) -> Iterator[tuple[str, bool]]:
        if self._end.lease[0] == batch.token:
            yield "its number", self._end.lease[1] >= batch.number
        for number in batch.content["trials"]:
            yield f"trial {number} made", number in self._end.trials
        for number, state in batch.content["finished"]:
            yield f"trial {number} finished", self._end.trials.get(number) == state
        for number, attempt_number, *_ in batch.content["opened"]:
            yield (
                f"{number}.{attempt_number} opened",
                (number, attempt_number) in self._end.attempts,
            )
        for report in batch.content["reports"]:
            yield f"report {report}", tuple(report) in self._end.reports

    def _compare_recovery(self, token: int) -> None:
        expected = {
            number: [(key[1], attempt.state, attempt.cursor) for key, attempt in sorted(self.attempts.items())
                     if key[0] == number]
            for number, state in self.trials.items()
            if state not in OVER and any(key[0] == number for key in self.attempts)
        }  # fmt: skip
        found = self._recoveries[token]
        for number in sorted(set(expected) | set(found)):
            text = f"I1: token {token} found of trial {number}: {found.get(number)}, committed: {expected.get(number)}"
            self._expect(expected.get(number) == found.get(number), text)

    def _compare_end(self) -> None:
        end = self._end
        for number in sorted(set(self.trials) | set(end.trials)):
            committed, there = self.trials.get(number), end.trials.get(number)
            same = committed == there or (
                committed == "unfinished" and there in ("running", "waiting")
            )
            self._expect(
                same, f"I1: trial {number} was committed as {committed} and is stored as {there}"
            )
        for key in sorted(set(self.attempts) | set(end.attempts)):
            attempt = self.attempts.get(key)
            known = attempt and (attempt.state, attempt.failure, attempt.cursor)
            text = f"I2: attempt {key} was committed as {known} and is stored as {end.attempts.get(key)}"
            self._expect(known == end.attempts.get(key), text)
        times = Counter(end.reports)
        for report, batch in self.reports.items():
            self._expect(
                times[report] == 1,
                f"I3: report {report} of {batch} is stored {times[report]} times",
            )
        for report in set(times) - set(self.reports):
            self._found.append(f"I3: report {report} is stored, and no batch brought it")

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self._found.append(otherwise)


# --- what was done outside of the database
# ----------------------------------------------------------


def _acknowledged(records: Sequence[Record], replay: Replay) -> Iterator[str]:
    """I3: what is acknowledged is forgotten by the worker, so it must have been recorded before;
    or be refused."""
    tokens = defaultdict(set)
    for record in records:
        if record["op"] == "lease":
            tokens[record["pid"]].add(record["token"])
    last: dict[tuple[int, Key], int] = {}
    for record in records:
        if record["op"] != "acknowledge":
            continue
        for trial_id, attempt_number, cursor in record["cursors"]:
            key = number_of(trial_id), attempt_number
            attempt = replay.attempts.get(key)
            if attempt is None:
                yield f"I3: {key} was acknowledged up to {cursor}, and never opened"
                continue
            refused = attempt.ended_by is not None and attempt.ended_by.began < record["at"]
            recorded = max((c for at, c in replay.cursors[key] if at < record["at"]), default=0)
            if cursor > recorded and not refused:
                yield f"I3: {key} was acknowledged up to {cursor}, and recorded up to {recorded}"
            if len(tokens[record["pid"]]) == 1:
                if cursor < last.get((record["pid"], key), 0):
                    yield f"I3: the acknowledged cursor of {key} went back from {last[record['pid'], key]} to {cursor}"
                last[record["pid"], key] = cursor


def _ran_once(records: Sequence[Record], replay: Replay) -> Iterator[str]:
    """I2: an attempt is launched and run once, after it was recorded; an earlier one of its
    trial is over by then."""
    launched: set[Key] = set()
    runs: dict[Key, list[float]] = {}
    for record in records:
        if record["op"] not in ("launch", "run"):
            continue
        key = number_of(record["attempt"][0]), record["attempt"][1]
        if record["op"] == "run" and record["phase"] == "end":
            if key in runs:
                runs[key][1] = record["at"]
            continue
        verb = "launched" if record["op"] == "launch" else "begun"
        known = replay.attempts.get(key)
        if known is None or known.opened_by is None:
            yield f"I5: {key} was {verb}, and never opened"
        elif known.opened_by.began > record["at"]:
            yield f"I5: {key} was {verb} before {known.opened_by} opened it"
        if key in (launched if record["op"] == "launch" else runs):
            yield f"I2: {key} was {verb} twice"
        if record["op"] == "launch":
            launched.add(key)
        else:
            runs.setdefault(key, [record["at"], float("inf")])
    for (number, attempt_number), (began, _) in runs.items():
        for (trial, earlier), (_, ended) in runs.items():
            if trial == number and earlier < attempt_number and ended > began:
                over = replay.attempts.get((trial, earlier))
                if over is None or over.ended_by is None or over.ended_by.began > began:
                    yield f"I2: {(number, attempt_number)} ran while {(trial, earlier)} did, which was not over"


def _said(records: Sequence[Record], end: Stored) -> Iterator[str]:
    """I3: everything that a worker reported before its own outcome is stored."""
    there = set(end.reports)
    ended = {
        (number_of(record["attempt"][0]), record["attempt"][1]): record["at"]
        for record in records
        if record["op"] == "run" and record["phase"] == "end"
    }
    for record in records:
        if record["op"] != "said":
            continue
        key = number_of(record["attempt"][0]), record["attempt"][1]
        state = end.attempts.get(key, ("",))[0]
        if (
            record["at"] > ended.get(key, 0.0)
            or state not in ("finished", "pruned", "paused")
            or key in end.thinned
        ):
            continue
        if (*key, record["step"]) not in there:
            yield f"I3: {key} said step {record['step']} and {state}, and the step is not stored"


# --- what must be true in the end
# -------------------------------------------------------------------


def _budgets(end: Stored) -> Iterator[str]:
    limit = end.spec.budget.trials
    tried = {
        number for number, _ in end.attempts
    }  # one that was taken back while it was enqueued never ran
    ran = sum(
        state != "waiting" and (state != "fail" or number in tried)
        for number, state in end.trials.items()
    )
    if limit is not None and ran > limit:
        yield f"I4: {ran} trials, and a budget of {limit}"
    failures = Counter(
        (number, failure) for (number, _), (_, failure, _) in end.attempts.items() if failure
    )
    for (number, failure), times in failures.items():
        retries: int = getattr(end.spec.retries, failure, 0)
        if times > retries + 1:
            yield f"I4: trial {number} ended {times} times as {failure}, and may be retried {retries} times"


def _retried(replay: Replay, end: Stored) -> Iterator[str]:
    """I6: in a finished study nothing waits for another attempt."""
    if end.state == "finished":
        for number, batch in replay.requeued.items():
            yield f"I6: trial {number} was to be retried by {batch}, and never was"
        for number, state in end.trials.items():
            if state == "running":
                yield f"I6: the study is finished, and trial {number} is {state}"
