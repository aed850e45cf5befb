"""An explanation as one HTML page that opens anywhere: tables to sort, charts, what the network sees in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opsin.analyze import plots, visualize
from opsin.analyze.explain_schema import Explanation, Identity
from opsin.analyze.sections import (
    ORIGINS,
    Advices,
    LayerTree,
    amount,
    dims,
    facts,
    fields_section,
    memory_sections,
    percent,
    results_table,
    seen_sections,
    stage_table,
    training_sections,
    uncounted_table,
)
from opsin.engine.report import Figure, Section, Table, render
from opsin.errors import InputError
from opsin.files import atomic
from opsin.nn.counting import short_count

_HERE = Path(__file__).parent


def write_page(
    path: str | Path,
    explanations: Sequence[Explanation],
    *,
    images: Sequence[str | Path] = (),
    layers: Sequence[str] | None = None,
    units: Sequence[int] | None = None,
) -> Path:
    """Write the page of one model, or of several beside each other; atomically.

    For a run: what it sees in `images`, or else in some of its validation data: feature maps of `layers` (None for
    every stage), what excites `units` of them (None for the busiest), dead units, class evidence. Raises InputError for
    images before a network without trained weights, for unreadable ones, and for an unknown layer or unit; JobError
    where the page cannot be written.
    """
    path = Path(path)
    if not explanations:
        raise InputError("nothing to explain; name a model, a run or a recipe")
    if len(explanations) == 1:
        page = one_page(explanations[0], images, layers, units)
    elif images or layers or units:
        raise InputError("images, layers and units belong to one run; explain it alone")
    else:
        page = comparison_page(explanations)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def one_page(
    explanation: Explanation,
    images: Sequence[str | Path] = (),
    layers: Sequence[str] | None = None,
    units: Sequence[int] | None = None,
) -> str:
    """The page of one network, as HTML."""
    identity, totals = explanation.identity, explanation.totals
    # A module that was explained without being registered cannot be built again, and so sees nothing here.
    # What takes no images sees none.
    subject = visualize.open_subject(explanation, images) if identity.source and identity.images else None
    if not identity.images and (images or layers or units):
        raise InputError(f"{identity.source} takes no images, so there is nothing to see in them")
    sections: list[Section] = [facts(explanation)]
    if explanation.results:
        sections.append(results_table(explanation.results))
    sections.append(Advices("Advice", explanation.advice))
    if explanation.stages:
        sections.append(stage_table(explanation.stages))
        if subject is not None:
            sections.append(fields_section(explanation, subject))
    if subject is not None and subject.trained:
        sections += seen_sections(explanation, subject, layers, units)
    sections += memory_sections(explanation.memory)
    sections.append(LayerTree("Layers", explanation))
    if explanation.uncounted:
        sections.append(uncounted_table(explanation))
    sections += training_sections(explanation)
    headline = {
        "parameters": f"{totals.params:,}",
        "MACs": short_count(totals.macs),
        "FLOPs": short_count(totals.flops),
        "activations": short_count(totals.activations),
        "FLOPs per byte": f"{totals.intensity:.3g}",
        "counted": f"{totals.coverage:.4g} %",
    }
    if identity.kind == "model":
        return _render(identity.name, identity.idea, headline, sections)
    return _render(_called(identity), f"{identity.name}: {identity.idea}", headline, sections)


def comparison_page(explanations: Sequence[Explanation]) -> str:
    """The page of several networks beside each other, as HTML."""
    metric, values = shared_metric(explanations)
    costs = [_costs(e) for e in explanations]
    names = _names(explanations)
    points = [plots.Point(n, v, c) for n, v, c in zip(names, values, costs, strict=True)]
    sections: list[Section] = [_comparison_table(explanations, names)]
    known = [p for p in points if p.accuracy is not None]
    if len(known) > 1:
        left_out = [p.name for p in points if p.accuracy is None]
        caption = f"Without it, and so not drawn: {', '.join(left_out)}." if left_out else ""
        drawing = plots.compare(known, metric)
        sections.append(Figure(f"{metric} against costs".capitalize(), drawing, caption, wide=True))
    sections.append(Figure("Costs", plots.bars(points), "Each cost relative to the largest of the models.", wide=True))
    if any(e.results for e in explanations):
        sections.append(Table("Results", *_results_beside(explanations, names)))
    advice = [[n, a.title, a.finding, a.source] for n, e in zip(names, explanations, strict=True) for a in e.advice]
    if advice:
        sections.append(Table("Advice", ["network", "advice", "what is there", "source"], advice))
    title = " and ".join(names) if len(names) < 4 else f"{len(names)} networks compared"
    return _render(title, ", ".join(names) if len(names) > 3 else "", {}, sections)


def _render(title: str, subtitle: str, headline: Mapping[str, str], sections: Sequence[Section]) -> str:
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    return render(title, headline, sections, subtitle, _HERE / "page.html.j2", script)


def shared_metric(explanations: Sequence[Explanation]) -> tuple[str, list[float | None]]:
    """The result that most of the networks have, and each one's best-founded value: measured before published."""
    counted: dict[str, int] = {}
    for explanation in explanations:
        for metric in {r.metric for r in explanation.results}:
            counted[metric] = counted.get(metric, 0) + 1
    if not counted:
        return "", [None] * len(explanations)
    best = max(counted, key=lambda m: (counted[m], "top-1" in m or "accuracy" in m))
    order = ["run", "recipe", "weights", "published"]
    values: list[float | None] = []
    for explanation in explanations:
        found = sorted((r for r in explanation.results if r.metric == best), key=lambda r: order.index(r.origin))
        values.append(found[0].value if found else None)
    return best, values


def _comparison_table(explanations: Sequence[Explanation], names: Sequence[str]) -> Table:
    rows = [
        [
            name,
            str(e.identity.year),
            dims(e.identity.input),
            e.totals.params,
            short_count(e.totals.macs),
            short_count(e.totals.flops),
            short_count(e.totals.activations),
            amount(e.totals.bytes),
            round(e.totals.intensity, 1),
            amount(e.memory.train_peak),
            amount(e.memory.infer_peak),
            None if e.latency is None else f"{e.latency.median:.1f}",
            len(e.layers),
            len(e.advice),
        ]
        for name, e in zip(names, explanations, strict=True)
    ]
    columns = [
        *("network", "year", "input", "parameters", "MACs", "FLOPs", "activations", "bytes moved", "FLOPs per byte"),
        *("to train", "to infer", "ms", "layers", "advice"),
    ]
    batches = {e.memory.batch for e in explanations}
    nouns = dict.fromkeys(e.identity.noun for e in explanations)
    note = f"Counts for one {' or '.join(nouns)}; memory at a batch of {' or '.join(map(str, sorted(batches)))}."
    timed = [e.latency for e in explanations if e.latency is not None]
    if timed:
        first = timed[0]
        note += f" ms: median of a forward pass of {first.batch} on {first.device}, {first.threads} threads."
    return Table("Comparison", columns, rows, note)


def _results_beside(explanations: Sequence[Explanation], names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    metrics = list(dict.fromkeys(r.metric for e in explanations for r in e.results))
    rows = []
    for name, explanation in zip(names, explanations, strict=True):
        for origin in (o for o in ORIGINS if any(r.origin == o for r in explanation.results)):
            found = {r.metric: r.value for r in explanation.results if r.origin == origin}
            rows.append([name, ORIGINS[origin], *(percent(found.get(m)) for m in metrics)])
    return ["network", "by", *metrics], rows


def _costs(explanation: Explanation) -> dict[str, float | None]:
    totals, latency = explanation.totals, explanation.latency
    costs: dict[str, float | None] = {
        "MACs": totals.macs,
        "parameters": totals.params,
        "activations": totals.activations,
    }
    if latency is not None:
        costs[f"latency, ms (batch {latency.batch}, {latency.device})"] = latency.median
    return costs


def _called(identity: Identity) -> str:
    """The name of a model, of a run's folder, or of a recipe's file."""
    if identity.kind == "model":
        return identity.name
    path = Path(identity.source).resolve()
    if path.suffix in (".yaml", ".yml"):
        return path.stem
    return path.parent.name if path.name == "model.safetensors" else path.name


def _names(explanations: Sequence[Explanation]) -> list[str]:
    """What to call each, with a number where two are called the same."""
    called = [_called(explanation.identity) for explanation in explanations]
    before = [called[:place].count(name) for place, name in enumerate(called)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(called, before, strict=True)]
