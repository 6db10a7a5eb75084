"""Captions at corpus scale → the labels of each and synset counts: notebook 01's work for files that no notebook could hold.

Reads parquets or WebDataset shards, local or remote, file by file on many cores; writes one result a file into a folder that
can be taken up again at any time and merged with others into the `synset_counts.parquet` that notebook 02 prunes.

    python -m catlip_lite.data.label_corpus SOURCE DESTINATION --workers 8

A source file `00000.tar` becomes two files; the digits are of its address, so that equal names in two folders differ:
- `00000-1f3a9c2e.labels.parquet`: uid: string, labels: list<int32>, a row a caption in the source's order. A label is a
  WNID number (2084071 for n02084071), in the labeler's order; a caption without any has an empty list.
- `00000-1f3a9c2e.counts.parquet`: wnid: string, count: int64, the captions of that file that mention the synset.
A result is there completely or not at all, whatever ends the run. Complete ones are skipped, unless the source has another
size, ETag or time of change by now: then it is labelled again.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa

from ..artefacts import provenance, write_table
from ..labels import CaptionLabeler, load_nouns
from ..labels.labeler import LABELER_FACTS, MODES
from ..labels.senses import SENSES
from .captions import DEFAULT_COLUMN, OF_FILES
from .label_engines import ENGINES, check_engine, run_engine
from .label_file import DEFAULT_UID_COLUMN, Labelling, Outcome, check_columns
from .label_results import Destination
from .sources import SourceFile, find_source_files

logger = logging.getLogger(__name__)

COUNTS_FILE = "synset_counts.parquet"
LOOK_AT = 8  # files whose columns are looked at before any is labelled
MERGE_ROWS = 5_000_000  # rows of counts in memory before they are added up
LINE_EVERY_SECONDS = 10.0


@dataclass
class LabelReport:
    """What a run of `label_corpus` did.

    files: labelled now; skipped: complete from an earlier run; broken: (address, reason) of those left out. captions and
    unlabelled (those without any synset), damaged ("shard:key: reason" of samples that cannot be read, and have no labels): of
    the files labelled now. seconds: wall clock, from the first file's start.
    """

    files: int = 0
    skipped: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    captions: int = 0
    unlabelled: int = 0
    damaged: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def captions_per_second(self) -> float:
        """Over all workers."""
        return self.captions / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        share = f" ({self.unlabelled / self.captions:.1%})" if self.captions else ""
        lines = [
            f"{self.files:,} files labelled, {self.skipped:,} complete already, {len(self.broken):,} broken",
            f"{self.captions:,} captions, {self.unlabelled:,} of them without a label{share}",
            f"{self.captions_per_second:,.0f} captions/s",
            *(f"broken: {file}: {reason}" for file, reason in self.broken),
            *(f"damaged: {sample}" for sample in self.damaged),
        ]
        return "\n".join(lines)


def label_corpus(
    source: str | Path | Sequence[str | Path],
    destination: str | Path,
    *,
    mode: str = "compound",
    sense: str | None = None,
    proper_nouns: bool = True,
    tagger: str = "perceptron",
    column: str = DEFAULT_COLUMN,
    uid_column: str = DEFAULT_UID_COLUMN,
    uid_from_json: bool = False,
    engine: str = "processes",
    workers: int | None = None,
    progress: Callable[[Iterable], Iterable] = lambda outcomes: outcomes,
) -> LabelReport:
    """Label every caption behind an address (results: see the module); run again with the same arguments, it goes on.

    source: parquets or tars by address (see `find_source_files`): a file, folder, glob, brace pattern or list, local or at any
    fsspec address. destination: a folder, local or at such an address; all workers must reach both.

    mode, sense, proper_nouns, tagger: as of `CaptionLabeler`. column: where parquets keep captions; tars keep them in .txt,
    else in .json under "caption". uid_column: values become strings; parquets without a column "uid" get "<file stem>:<row>",
    rows counted from 0 (any other name must be there). A tar's uid is the sample's key; with uid_from_json it is `uid_column`
    of its .json, which DataComp's shards have ("uid") and which costs time.
    engine: "processes" of this machine or "ray" (the cluster of RAY_ADDRESS, else this machine; all its machines need this
    package). workers: files at a time; None: a core each. One worker needs no other process. A script that uses more must
    call this within `if __name__ == "__main__":`.
    progress: wraps the sized iterable of outcomes, one a file as it is finished.

    A file that cannot be read to its end, or lacks a column, is left out, logged and reported; the others go on.
    Raises, before any work: ValueError (unknown mode or engine; the destination holds labels of another labeler or column; none
    of the parquets looked at has the column), FileNotFoundError, ModuleNotFoundError (Ray is not installed).
    Raises, with all finished files kept: OSError if results cannot be written (a full disk), RuntimeError if a worker dies,
    KeyboardInterrupt; ValueError if no file at all could be labelled.
    """
    check_engine(engine, workers)
    labeler = CaptionLabeler(mode, sense=sense, proper_nouns=proper_nouns, tagger=tagger)
    labelling = Labelling(
        labeler.name, **labeler.card, caption_column=column, uid_column=uid_column, uid_from_json=uid_from_json
    )
    files = find_source_files(source)
    target = Destination.at(destination)
    done = _complete(files, target, labelling)
    # The largest first: at the end, no worker is left alone with a long one.
    todo = sorted((file for file in files if file.address not in done), key=lambda file: -(file.size or 0))
    _look_at_columns(todo, labelling)
    target.filesystem.makedirs(target.folder, exist_ok=True)
    target.sweep()
    report = LabelReport(skipped=len(done))
    started = time.monotonic()
    try:
        with closing(run_engine(engine, workers, todo, target, labelling)) as outcomes:
            for outcome in progress(_Sized(outcomes, len(todo))):
                _add(outcome, report)
    except (KeyboardInterrupt, OSError, RuntimeError) as error:
        raise _interruption(error, f"{_finished(files, target, labelling, report):,} of {len(files):,}") from error
    finally:
        report.seconds = time.monotonic() - started
        target.sweep()
    return _worth_something(report)


# --- before and between -------------------------------------------------------------------------------------------------


def _complete(files: Sequence[SourceFile], destination: Destination, labelling: Labelling) -> set[str]:
    """Addresses of the files whose labels are there already. Raises ValueError if the destination's are of another kind."""
    cards = destination.cards()
    complete = set()
    for card in cards.values():
        if card["labeler"] != labelling.labeler:
            raise ValueError(
                f"{destination.address} holds labels that {card['labeler']} made, not {labelling.labeler}: "
                "use another destination, or remove its files"
            )
    for file in files:
        card = cards.get(file.result_name)
        if card is None:
            continue
        wanted = labelling.card(file)
        for option in asdict(labelling):
            if card.get(option) != wanted[option]:
                raise ValueError(
                    f"{destination.address} holds labels of {file.address} made with {option}={card.get(option)!r}, not "
                    f"{wanted[option]!r}: use another destination, or remove its files"
                )
        if all(card.get(fact) == wanted[fact] for fact in wanted):
            complete.add(file.address)
        else:
            logger.info("%s has changed since it was labelled: it is labelled again", file.address)
    return complete


def _finished(files: Sequence[SourceFile], destination: Destination, labelling: Labelling, report: LabelReport) -> int:
    """How many files are complete when a run ends early: workers may have finished some that it has not heard of."""
    try:
        return len(_complete(files, destination, labelling))
    except Exception:  # what ended the run may keep the destination from being read, too
        return report.files + report.skipped


def _interruption(error: BaseException, done: str) -> BaseException:
    """The same error, with what is done and how to go on."""
    advice = f"{done} files are done; run again with the same arguments to go on from there"
    if isinstance(error, OSError):
        return OSError(error.errno or errno.EIO, f"{error.strerror or error}: {advice}")
    if isinstance(error, RuntimeError):
        return RuntimeError(f"{error}: {advice}")
    return KeyboardInterrupt(f"stopped: {advice}")


def _look_at_columns(files: Sequence[SourceFile], labelling: Labelling) -> None:
    """Raises ValueError, before labelers are built and files read, if none of some parquets has the columns."""
    parquets = [file for file in files if file.suffix == ".parquet"]
    reasons = []
    for file in parquets[:: max(1, len(parquets) // LOOK_AT)][:LOOK_AT]:
        try:
            check_columns(file, labelling)
            return
        except (ValueError, OSError) as error:
            reasons.append(f"{file.address}: {error}")
    if reasons and len(parquets) == len(files):
        raise ValueError(f"no file of the {len(reasons)} looked at can be labelled; {reasons[0]}")


def _worth_something(report: LabelReport) -> LabelReport:
    """Raises ValueError if all files are broken."""
    if report.broken and not report.files and not report.skipped:
        file, reason = report.broken[0]
        raise ValueError(f"none of the {len(report.broken):,} files could be labelled, the first to fail: {file}: {reason}")
    return report


def _add(outcome: Outcome, report: LabelReport) -> None:
    """Raises OSError if the outcome could not be written: the next one would not, either."""
    if outcome.failed:
        raise OSError(outcome.errno or errno.EIO, f"the labels of {outcome.source} cannot be written ({outcome.failed})")
    if outcome.broken:
        logger.warning("%s is left out: %s", outcome.source, outcome.broken)
        report.broken.append((outcome.source, outcome.broken))
        return
    report.files += 1
    report.captions += outcome.captions
    report.unlabelled += outcome.unlabelled
    report.damaged += outcome.damaged


@dataclass
class _Sized:
    """Outcomes with their number, which a progress bar wants to know."""

    outcomes: Iterator[Outcome]
    length: int

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Outcome]:
        return self.outcomes


# --- counts -------------------------------------------------------------------------------------------------------------


def merge_counts(destinations: str | Path | Sequence[str | Path]) -> tuple[pd.DataFrame, dict]:
    """Synset counts over all complete results of one destination or several, as if all captions had been counted at once.

    Gives the table (wnid, name, count: captions that mention the synset; the most frequent first, ties by WNID) and the card of
    `synset_counts.parquet`: num_captions, labeler and its options, captions (where the sources are), corpus_fingerprint, …
    The fingerprint of one file is that of its captions (`captions.fingerprint`); of more, "files-sha256:" and the SHA-256 over
    the lines "<file name> <fingerprint>", sorted: neither the order of work nor the folder matters.
    Raises ValueError if there is no result or no label, labelers differ, or a source is in it twice.
    """
    parts, cards, pending = [], [], 0
    for address in [destinations] if isinstance(destinations, (str, Path)) else destinations:
        for _, (table, card) in Destination.at(address).counts():
            parts.append(table.replace_schema_metadata(None))
            cards.append(card)
            pending += len(table)
            if pending > MERGE_ROWS:
                parts, pending = [_added_up(parts)], 0
    if not cards:
        raise ValueError(f"{destinations} holds no complete labels: run label_corpus first")
    _check_mergeable(cards)
    num_captions = sum(card["num_captions"] for card in cards)
    counts = _added_up(parts).to_pandas().sort_values(["count", "wnid"], ascending=[False, True], ignore_index=True)
    if counts.empty:
        raise ValueError(f"none of {num_captions:,} captions names a WordNet noun: are they English, and in the right column?")
    nouns = load_nouns()
    counts.insert(1, "name", [nouns.name(wnid) for wnid in counts["wnid"]])
    card = provenance(
        num_captions=num_captions,
        num_unlabelled=sum(card["num_unlabelled"] for card in cards),
        num_files=len(cards),
        **{fact: cards[0][fact] for fact in ("labeler", *LABELER_FACTS, "caption_column")},
        captions=_folders(cards),
        corpus_fingerprint=_corpus_fingerprint(cards),
    )
    return counts, card


def write_synset_counts(destinations: str | Path | Sequence[str | Path], folder: str | Path) -> Path:
    """Merge counts (see `merge_counts`) and write `synset_counts.parquet` to a run's folder, where notebook 02 looks for it."""
    counts, card = merge_counts(destinations)
    return write_table(counts, Path(folder) / COUNTS_FILE, card)


def _added_up(parts: Sequence[pa.Table]) -> pa.Table:
    added = pa.concat_tables(parts).group_by("wnid").aggregate([("count", "sum")])
    return pa.table({"wnid": added["wnid"], "count": added["count_sum"]})


def _check_mergeable(cards: Sequence[Mapping]) -> None:
    labelers = sorted({card["labeler"] for card in cards})
    if len(labelers) > 1:
        raise ValueError(f"counts of different labelers cannot be merged: {', '.join(labelers)}")
    seen, first, twins = set(), {}, []
    for card in cards:
        if card["source"] in seen:
            raise ValueError(f"{card['source']} would be counted twice: name each destination once, each with its own sources")
        seen.add(card["source"])
        twin = first.setdefault((PurePosixPath(card["source"]).name, card["captions_sha256"]), card["source"])
        if twin != card["source"] and card["num_captions"]:
            twins.append(f"{twin} and {card['source']}")
    if twins:  # a corpus that was moved between two runs, most likely
        logger.warning("%d file(s) are counted twice, with equal names and captions in two folders: %s", len(twins), twins[0])


def _folders(cards: Sequence[Mapping]) -> list[str]:
    """The sources, as globs: a folder and a suffix each."""
    return sorted({f"{source.rpartition('/')[0]}/*{PurePosixPath(source).suffix}" for source in (c["source"] for c in cards)})


def _corpus_fingerprint(cards: Sequence[Mapping]) -> str:
    if len(cards) == 1:
        return cards[0]["captions_sha256"]
    lines = sorted(f"{PurePosixPath(card['source']).name} {card['captions_sha256']}\n" for card in cards)
    return OF_FILES + hashlib.sha256("".join(lines).encode()).hexdigest()


# --- command line -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Label a corpus and print the report. Gives 0 (done, though some files may be broken), 1 (an error) or 130 (Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="python -m catlip_lite.data.label_corpus", description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="+", help="parquets or tars: files, folders, globs or brace patterns, local or remote")
    parser.add_argument("destination", help="the folder of the results, local or remote")
    parser.add_argument("--mode", default="compound", choices=MODES)
    parser.add_argument("--sense", choices=SENSES, help="visual for mode compound, first for the others, if not given")
    parser.add_argument("--no-proper-nouns", dest="proper_nouns", action="store_false", help="leave out names")
    parser.add_argument("--tagger", default="perceptron", help="for mode pos: perceptron, spacy or nltk")
    parser.add_argument("--column", default=DEFAULT_COLUMN, help="where parquets keep captions (%(default)s)")
    parser.add_argument("--uid-column", default=DEFAULT_UID_COLUMN, help="where they keep their uid (%(default)s)")
    parser.add_argument("--uid-from-json", action="store_true", help="take a tar's uids from each sample's .json, not its key")
    parser.add_argument("--engine", default="processes", choices=ENGINES)
    parser.add_argument("--workers", type=int, help="files at a time; a core each if not given")
    parser.add_argument("--counts", metavar="FOLDER", help=f"when all is done, merge the counts into FOLDER/{COUNTS_FILE}")
    options = vars(parser.parse_args(arguments))
    counts = options.pop("counts")
    logging.basicConfig(format="%(message)s")
    try:
        print(label_corpus(**options, progress=_print_progress), flush=True)
        if counts:
            Path(counts).mkdir(parents=True, exist_ok=True)
            print(f"written: {write_synset_counts(options['destination'], counts)}")
    except KeyboardInterrupt as error:
        print(error, file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _print_progress(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    started = last = time.monotonic()
    captions = 0
    for done, outcome in enumerate(outcomes, start=1):
        captions += outcome.captions
        now = time.monotonic()
        if now - last > LINE_EVERY_SECONDS:
            print(f"{done:,} of {len(outcomes):,} files, {captions / (now - started):,.0f} captions/s", flush=True)
            last = now
        yield outcome


if __name__ == "__main__":
    sys.exit(main())
