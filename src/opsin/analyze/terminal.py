"""An explanation on the terminal: the same facts as its JSON, for reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from opsin.analyze.explain_schema import Explanation, Field, Layer, Memory, Stage, Training
from opsin.nn.counting import short_count

_PLAIN_WIDTH = 160  # where nobody watches: a file or a pipe
_ORIGIN = {"published": "published", "weights": "published weights", "recipe": "our recipe", "run": "this run"}


def show(explanation: Explanation, console: Console | None = None) -> None:
    """Print everything about one network."""
    out = console or _console()
    _head(explanation, out)
    _results(explanation, out)
    _totals(explanation, out)
    if explanation.stages:
        out.print(_stage_table(explanation.stages))
    out.print(_layer_table(explanation.layers))
    if explanation.uncounted:
        out.print("\n[bold]Not counted[/]")
        for gap in explanation.uncounted:
            places = ", ".join(gap.layers[:4]) + (", ..." if len(gap.layers) > 4 else "")
            out.print(f"  {gap.operator}: {gap.calls} calls, in {escape(places) or 'the network itself'}")
    _memory(explanation.memory, out)
    if explanation.latency is not None:
        took = explanation.latency
        out.print(
            f"  one {explanation.identity.noun} takes {took.median:.1f} ms "
            f"({took.fastest:.1f} to {took.slowest:.1f} in {took.runs} runs, "
            f"{took.device}, {took.threads} threads)"
        )
    if explanation.training is not None:
        _training(explanation.training, out)
    _advice(explanation, out)


def show_comparison(compared: dict[str, Any], console: Console | None = None) -> None:
    """Print what `opsin.analyze.compare.compare` gave, as one table."""
    out = console or _console()
    table = _table(f"Compared; memory at a batch of {compared['models'][0]['batch']}")
    metric = compared["metric"] or "accuracy"
    columns = ("network", "year", "input", "params", "MACs", "FLOPs", "activations", "FLOPs/byte", "train", "infer",
               "field", metric, "ms")  # fmt: skip
    for name in columns:
        table.add_column(name, justify="left" if name in ("network", "input", "field") else "right", no_wrap=True)
    for row in compared["models"]:
        field = row["receptive_field"]
        table.add_row(
            row["source"] or row["name"],
            str(row["year"] or "-"),
            _sides(row["input"]),
            f"{row['params']:,}",
            short_count(row["macs"]),
            short_count(row["flops"]),
            short_count(row["activations"]),
            f"{row['intensity']:.1f}",
            _size(row["train_peak"]),
            _size(row["infer_peak"]),
            "-" if field is None else _sides(field) + (" + all" if row["sees_all"] else ""),
            "-" if row["accuracy"] is None else f"{row['accuracy']:.2f}",
            "-" if row["latency"] is None else f"{row['latency']:.1f}",
        )
    out.print(table)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def _table(title: str) -> Table:
    return Table(title=f"\n[bold]{title}[/]", title_justify="left", title_style="", box=None, pad_edge=False)


def _head(explanation: Explanation, out: Console) -> None:
    identity = explanation.identity
    what = "" if identity.kind == "model" else f" ({identity.kind} {escape(identity.source)})"
    out.print(f"[bold]{escape(identity.name)}[/]{what}, {identity.paper or 'nothing published'} {identity.year or ''}")
    if identity.idea:
        out.print(f"  {escape(identity.idea)}")
    for line in identity.place:
        out.print(f"  [dim]{escape(line)}[/]")
    options = ", ".join(f"{k}={v}" for k, v in identity.options.items())
    out.print(f"  input {_sides(identity.input)}" + (f"; {escape(options)}" if options else ""))


def _results(explanation: Explanation, out: Console) -> None:
    if not explanation.results:
        return
    table = _table("Results")
    for name in ("metric", "value", "from", "source"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for result in explanation.results:
        table.add_row(result.metric, f"{result.value:.2f} %", _ORIGIN[result.origin], escape(result.source))
    out.print(table)


def _totals(explanation: Explanation, out: Console) -> None:
    totals = explanation.totals
    out.print(f"\n[bold]Totals, one {explanation.identity.noun}[/]")
    out.print(f"  parameters   {totals.params:>15,}   and {totals.buffers:,} numbers in buffers")
    out.print(f"  MACs         {totals.macs:>15,}   multiply-adds of convolutions and products")
    if totals.counted_on:
        out.print(f"  [dim]the second stage counted on {totals.counted_on}; memory below is that of the first[/]")
    out.print(f"  FLOPs        {totals.flops:>15,}   all floating-point operations")
    out.print(f"  connections  {totals.connections:>15,}")
    out.print(f"  activations  {totals.activations:>15,}   outputs of convolutions and products")
    out.print(f"  bytes moved  {totals.bytes:>15,}   {totals.intensity:.3g} FLOPs per byte")
    out.print(f"  counted      {totals.coverage:>14.4g} %   of {totals.operators:,} operator calls")
    if totals.macs != totals.macs_by_flop_counter:
        out.print(f"  [dim]torch.utils.flop_counter has {totals.macs_by_flop_counter:,} MACs: see docs/counting.md[/]")


def _stage_table(stages: Sequence[Stage]) -> Table:
    table = _table("Stages")
    columns = ("stage", "output", "stride", "params", "%", "MACs", "% ", "field", "jump", "centre")
    for name in columns:
        table.add_column(name, justify="left" if name in ("stage", "output", "field") else "right", no_wrap=True)
    for stage in stages:
        seen = stage.field
        table.add_row(
            stage.name,
            _sides(stage.output_shape),
            str(stage.stride or "-"),
            f"{stage.params:,}",
            _percent(stage.share["params"]),
            short_count(stage.macs),
            _percent(stage.share["macs"]),
            _field(seen),
            "-" if seen is None or seen.jump is None else _once(seen.jump),
            "-" if seen is None else _once(seen.centre),
        )
    return table


def _layer_table(layers: Sequence[Layer]) -> Table:
    table = _table("Layers")
    left = ("layer", "type", "output", "field")
    columns = ("layer", "type", "output", "params", "MACs", "%", "FLOPs", "activations", "connections", "bytes",
               "FLOPs/byte", "field")  # fmt: skip
    for name in columns:
        wraps = name in ("layer", "type")
        table.add_column(name, justify="left" if name in left else "right", no_wrap=not wraps, overflow="fold")
    for layer in layers:
        table.add_row(
            escape(layer.name) or "(network)",
            layer.type,
            _sides(layer.output_shape) or "not run",
            _count(layer.params),
            _count(layer.macs),
            _percent(layer.share["macs"]) if layer.macs else "",
            _count(layer.flops),
            _count(layer.activations),
            _count(layer.connections),
            _size(layer.bytes_read + layer.bytes_written) if layer.bytes_read + layer.bytes_written else "",
            f"{layer.intensity:.2g}" if layer.flops else "",
            _field(layer.field) if layer.output_shape else "",
        )
    return table


def _memory(memory: Memory, out: Console) -> None:
    out.print(f"\n[bold]Memory at a batch of {memory.batch}[/]")
    parts = (("weights", memory.weights), ("buffers", memory.buffers), ("gradients", memory.gradients),
             (f"state of {memory.optimizer}", memory.optimizer_state),
             ("activations kept for the backward pass", memory.saved_activations))  # fmt: skip
    for name, amount in parts:
        out.print(f"  {_size(amount):>9}  {name}")
    for name, peak, measured in (
        ("to train", memory.train_peak, memory.measured_train_peak),
        ("to infer", memory.infer_peak, memory.measured_infer_peak),
    ):
        beside = "" if measured is None else f"; measured on {memory.device}: {_size(measured)}"
        out.print(f"  {_size(peak):>9}  {name}, at the peak (estimated{beside})")


def _training(training: Training, out: Console) -> None:
    out.print(f"\n[bold]Training[/] on {escape(training.data)}")
    out.print(
        f"  {training.epochs} epochs of batches of {training.batch_size}; {training.optimizer}, learning rate "
        f"{training.lr:g}, weight decay {training.weight_decay:g}; loss: {training.loss or 'of the model'}"
    )
    out.print(f"  schedule {training.schedule}, {training.warmup_epochs:g} epochs of warm-up; rate by epoch:")
    shown: dict[int, float] = {}
    for epoch, rate in training.rates:
        shown.setdefault(int(epoch), rate)
    steps = sorted(shown)[:: max(1, len(shown) // 10)]
    out.print("  " + "  ".join(f"{epoch}: {shown[epoch]:.2g}" for epoch in steps))


def _advice(explanation: Explanation, out: Console) -> None:
    out.print("\n[bold]Advice[/]" + ("" if explanation.advice else ": none of the rules speaks"))
    for advice in explanation.advice:
        out.print(Text.assemble("  ", (advice.title, "bold"), f": {advice.finding}."))
        out.print(Text(f"    why: {advice.reason}; what to do: {advice.remedy}"))
        out.print(Text(f"    {advice.source}; {', '.join(advice.layers)}", style="dim"))


def _field(seen: Field | None) -> str:
    if seen is None:
        return "-"
    size = _once(seen.size)
    bound = "" if seen.exact else "<= "
    return f"all, {bound}{size}" if seen.whole and seen.jump is None else f"{bound}{size}" + (" + all" * seen.whole)


def _once(pair: Sequence[float]) -> str:
    """A pair of equal numbers as one."""
    return f"{pair[0]:g}" if pair[0] == pair[1] else f"{pair[0]:g} x {pair[1]:g}"


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _size(amount: float) -> str:
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= scale:
            return f"{amount / scale:.3g} {unit}" if amount < 999.5 * scale else f"{amount / scale:.0f} {unit}"
    return f"{amount:g} B"
