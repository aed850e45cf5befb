"""Text from the outputs of a network trained with CTC: the best path, and a beam search over prefixes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.errors import InputError
from opsin.ops.language import Lexicon

Array: TypeAlias = NDArray[Any]
LanguageModel: TypeAlias = Callable[[Sequence[tuple[int, ...]]], Array]

# Prefixes that one search may make: its tables then take some 100 MB. Longer batches are searched in parts.
_PREFIXES = 2_000_000


class Decoded(NamedTuple):
    """A string of labels and its log-score: its best path's (greedy), or all its paths' in the beam and its priors'."""

    labels: list[int]
    score: float


def ctc_greedy(log_probs: Tensor, lengths: Tensor | Sequence[int] | None = None, *, blank: int = 0) -> list[Decoded]:
    """The labels of the most probable path of each sequence: repeats merged, then blanks removed.

    Graves et al. 2006, section 3.2, best path decoding. log_probs: (T, B, K), as torch's CTC loss takes them.
    lengths: (B,) steps of each sequence, T where None. The best path need not be that of the best string.
    Raises InputError for shapes that do not fit, NaN, and values above 0, which are no log-probabilities.
    """
    counts = _checked(log_probs, lengths, blank)
    values, path = log_probs.detach().max(dim=2)
    inside = torch.arange(len(path), device=path.device)[:, None] < counts.to(path.device)
    changed = torch.ones_like(inside)
    changed[1:] = path[1:] != path[:-1]
    kept = (inside & changed & (path != blank)).T.cpu()
    scores = torch.where(inside, values.double(), 0).sum(dim=0).tolist()
    return [Decoded(row[keep].tolist(), score) for row, keep, score in zip(path.T.cpu(), kept, scores, strict=True)]


def ctc_prefix_beam(
    log_probs: Tensor,
    lengths: Tensor | Sequence[int] | None = None,
    *,
    width: int = 100,
    blank: int = 0,
    lexicon: Lexicon | None = None,
    language_model: LanguageModel | None = None,
    language_weight: float = 1.0,
    label_bonus: float = 0.0,
) -> list[list[Decoded]]:
    """The most probable strings of each sequence, best first, by a search over prefixes. Hannun et al. 2014,
    arXiv:1408.2873, section 3 and algorithm 1.

    log_probs: (T, B, K), as torch's CTC loss takes them; lengths: (B,) steps of each sequence, T where None. At every
    step the `width` best prefixes stay, each with the sum over its paths that the beam has kept.
    lexicon: only its words, or texts of them, can come out; no string does if the width was too small to hold one.
    language_model: a function of N prefixes, tuples of labels, that gives the log-probability of each label as the next
    one, (N, K); see CharacterModel. A prefix ranks by

        log p_ctc + language_weight * log p_language + label_bonus * length.

    The paper counts words where label_bonus counts labels. Computed in float64 on the CPU, all sequences at once.
    Raises InputError for shapes that do not fit, NaN, and values above 0, which are no log-probabilities.
    """
    counts = _checked(log_probs, lengths, blank).numpy()
    if width < 1:
        raise InputError(f"width={width} must be at least 1, for example 100")
    if not language_weight > 0:
        raise InputError(f"language_weight={language_weight} must be above 0; leave the language model out instead")
    if lexicon is not None and not lexicon.fits(log_probs.shape[2], blank):
        raise InputError(f"the lexicon has labels outside 0..{log_probs.shape[2] - 1} or the blank {blank}")
    values = log_probs.detach().cpu().double().numpy()
    steps, _, classes = values.shape
    prior = _Prior(lexicon, language_model, language_weight, label_bonus, classes)
    found: list[list[Decoded]] = [[] for _ in counts]
    longest_first = np.argsort(-counts, kind="stable")
    share = max(1, _PREFIXES // (width * max(steps, 1)))
    for begin in range(0, len(counts), share):
        part = longest_first[begin : begin + share]
        search = _Search(values[:, part], blank, width, prior)
        for step in range(int(counts[part].max())):
            search.advance(step, int((counts[part] > step).sum()))
        for place, strings in zip(part.tolist(), search.results(), strict=True):
            found[place] = strings
    return found


class _Prior(NamedTuple):
    """What ranks prefixes beside the network's outputs."""

    lexicon: Lexicon | None
    language_model: LanguageModel | None
    language_weight: float
    label_bonus: float
    classes: int

    @property
    def scores_labels(self) -> bool:
        """Whether two labels after the same prefix can rank otherwise than by the network's outputs."""
        return self.lexicon is not None or self.language_model is not None


class _Search:
    """The beams of B sequences, `width` slots each, best first, in flat arrays: slot s of sequence b is b * width + s.

    A prefix is a number. The dictionary of prefixes, (prefix, label) -> the prefix with that label added, is the tree
    of all that were ever in a beam; it makes equal strings the same number, however they were reached. A prefix that
    is extended to one that is in the beam already must add to it instead. As a prefix has one parent, it is enough to
    know for each slot where its parent is: `parents`, -1 where it is not in the beam.
    """

    def __init__(self, values: Array, blank: int, width: int, prior: _Prior) -> None:
        steps, count, classes = values.shape
        self.values, self.blank, self.width, self.classes, self.prior = values, blank, width, classes, prior
        most = self._lay_out_candidates(count)
        labels = np.delete(np.arange(classes), blank)
        by_value = np.argsort(-values[:, :, labels], axis=2, kind="stable")[:, :, :most]
        self.labels = labels[by_value]  # (T, B, most): of each step, most probable first
        self.ordered = np.take_along_axis(values, self.labels, axis=2)
        self.ranks = np.full(values.shape, classes, np.int32)  # of each label in that order; the blank is behind all
        np.put_along_axis(self.ranks, self.labels, np.arange(most, dtype=np.int32)[None, None], axis=2)

        slots = count * width
        self.ends_blank = np.full(slots, -np.inf)  # log-probability of the paths that end in a blank
        self.ends_label = np.full(slots, -np.inf)  # and of those that end in the prefix's last label
        self.total = np.full(slots, -np.inf)  # of both
        self.bonus = np.zeros(slots)  # the prior's share of the score
        self.last = np.full(slots, blank)  # the last label; the empty prefix has the blank
        self.parents = np.full(slots, -1)
        self.ends_blank[::width] = self.total[::width] = 0

        room = count + steps * slots
        self.prefixes = {-1 - b: b for b in range(count)}  # (prefix * classes + label) -> prefix; the empty ones
        self.none = room  # stands for no prefix
        self.parent_of = np.full(room + 1, self.none)
        self.label_of = np.full(room + 1, -1)
        self.slot_of = np.full(room + 1, -1)
        self.prefix = np.full(slots, self.none)
        self.prefix[::width] = np.arange(count)
        self.slot_of[:count] = np.arange(0, slots, width)
        if prior.lexicon is not None:
            self.states = np.zeros(slots, np.int64)
        if prior.language_model is not None:
            self.texts: list[tuple[int, ...]] = [()] * count
            self.next_log_probs = self._ask_language_model(np.zeros(slots, np.int64))

    def _lay_out_candidates(self, count: int) -> int:
        """Which extensions are looked at, by the slot and by the label's rank; gives the number of ranks.

        Without a prior on labels, slot i with the label of rank j (from 0) cannot be among the best `width` if
        (i + 1) j > width. Slots up to i with labels up to rank j score no less, all are other strings, and of the
        (i + 1)(j + 1) - 1 of them, one for each slot may be out of order: a repeated label needs a blank before it.
        """
        width, ranks = self.width, self.classes - 1
        looked_at = np.full(width, ranks)
        if not self.prior.scores_labels:
            looked_at = np.minimum(ranks, width // np.arange(1, width + 1) + 1)
        self.candidates = int(looked_at.sum())
        starts = np.cumsum(looked_at) - looked_at
        slot = np.repeat(np.arange(width), looked_at)
        rank = np.arange(self.candidates) - starts[slot]
        # A row of scores: the slots themselves, their extensions, and one place for what is not looked at.
        self.row = width + self.candidates + 1
        self.source = np.concatenate([np.arange(width), slot, [0]])
        self.rank = np.concatenate([np.zeros(width, np.int64), rank, [0]])
        rows = np.repeat(np.arange(count), width)
        self.looked_at = np.tile(looked_at, count)
        self.starts = rows * self.row + width + np.tile(starts, count)
        self.waste = rows * self.row + self.row - 1
        self.class_offset = rows * self.classes
        self.label_offset = rows * int(looked_at.max())
        self.slot_offset = rows * width
        self.row_offset = rows * self.row
        return int(looked_at.max())

    def advance(self, step: int, active: int) -> None:
        """Take in one step of the first `active` sequences."""
        width, n = self.width, active * self.width
        values, ordered = self.values[step, :active], self.ordered[step, :active]
        ends_blank, ends_label, total = self.ends_blank[:n], self.ends_label[:n], self.total[:n]
        last, parents = self.last[:n], self.parents[:n]
        emit = values.ravel().take(self.class_offset[:n] + last)

        # Prefixes that stay: by a blank, by their last label again, or by their parent extended to them.
        extended = np.where(last == last.take(parents), ends_blank.take(parents), total.take(parents)) + emit
        extended[parents < 0] = -np.inf
        stay_blank = total + values[:, self.blank].repeat(width)
        stay_label = np.logaddexp(ends_label + emit, extended)

        scores = np.empty((active, self.row))
        flat = scores.reshape(-1)
        scores[:, :width] = np.logaddexp(stay_blank, stay_label).reshape(active, width)
        slot, rank = self.source[width:-1], self.rank[width:-1]
        np.add(total.reshape(active, width).take(slot, axis=1), ordered.take(rank, axis=1), out=scores[:, width:-1])
        ranks = self.ranks[step].ravel().take(self.class_offset[:n] + last)
        places = np.where(ranks < self.looked_at[:n], self.starts[:n] + ranks, self.waste[:n])
        flat[places] = ends_blank + emit  # a repeated label needs a blank before it
        looked_at = (ranks < self.looked_at.take(parents)) & (parents >= 0)
        flat[np.where(looked_at, self.starts.take(parents) + ranks, self.waste[:n])] = -np.inf  # is in the beam
        scores[:, -1] = -np.inf
        self._select(step, active, scores, stay_blank, stay_label)

    def _select(self, step: int, active: int, scores: Array, stay_blank: Array, stay_label: Array) -> None:
        """Keep the best of the slots and their extensions."""
        width, n = self.width, active * self.width
        priors = self._priors(step, active)
        if priors is not None:
            scores[priors == -np.inf] = -np.inf
        ranking = scores if priors is None else scores + priors
        best = np.argpartition(ranking, -width, axis=1)[:, -width:]
        row = np.arange(active)[:, None]
        best = best[row, np.argsort(-ranking[row, best], axis=1)].ravel()
        place = best + self.row_offset[:n]
        source = self.source.take(best) + self.slot_offset[:n]
        stays = best < width
        total = scores.ravel().take(place)
        labels = self.labels[step].ravel().take(self.rank.take(best) + self.label_offset[:n])
        if priors is not None:
            self.bonus[:n] = priors.ravel().take(place)
        self.ends_blank[:n] = np.where(stays, stay_blank.take(source), -np.inf)
        self.ends_label[:n] = np.where(stays, stay_label.take(source), total)
        self.total[:n] = total
        self.last[:n] = np.where(stays, self.last.take(source), labels)
        new = np.flatnonzero((total > -np.inf) & ~stays)
        self._number(n, source, new)
        self._follow(n, source, new)

    def _number(self, n: int, source: Array, new: Array) -> None:
        """The prefix of each slot and where its parent is. source: the slot it comes from; new: those extended."""
        before = self.prefix.take(source)
        keys = (before.take(new) * self.classes + self.last.take(new)).tolist()
        known = self.prefixes
        self.slot_of[self.prefix[:n]] = -1
        prefix = np.where(self.total[:n] > -np.inf, before, self.none)
        prefix[new] = [known.setdefault(key, len(known)) for key in keys]
        self.parent_of[prefix[new]] = before.take(new)
        self.label_of[prefix[new]] = self.last.take(new)
        self.slot_of[prefix] = np.arange(n)
        self.slot_of[self.none] = -1
        self.prefix[:n] = prefix
        self.parents[:n] = self.slot_of.take(self.parent_of.take(prefix))

    def _priors(self, step: int, active: int) -> Array | None:
        """What the prior adds to each score of a row, None where there is none."""
        prior, width, n = self.prior, self.width, active * self.width
        if not prior.scores_labels and not prior.label_bonus:
            return None
        slots = self.source + np.arange(0, n, width)[:, None]
        priors = self.bonus.take(slots)
        priors[:, width:] += prior.label_bonus
        if prior.scores_labels:
            labels = self.labels[step, :active].take(self.rank[width:], axis=1)
            places = slots[:, width:] * self.classes + labels
            if prior.language_model is not None:
                priors[:, width:] += prior.language_weight * self.next_log_probs.ravel().take(places)
            if prior.lexicon is not None:
                self.next_states = prior.lexicon.next_states(self.states[:n], self.classes)
                priors[:, width:][self.next_states.ravel().take(places) < 0] = -np.inf
        return priors

    def _follow(self, n: int, source: Array, new: Array) -> None:
        """Move what the prior knows of each prefix along with it."""
        labels = self.last.take(new)
        if self.prior.lexicon is not None:
            states = self.states.take(source)
            states[new] = self.next_states[source.take(new), labels]
            self.states[:n] = states
        if self.prior.language_model is not None:
            self.texts.extend([()] * (len(self.prefixes) - len(self.texts)))
            for prefix, label in zip(self.prefix.take(new).tolist(), labels.tolist(), strict=True):
                self.texts[prefix] = (*self.texts[self.parent_of[prefix]], label)
            rows = self.next_log_probs.take(source, axis=0)
            if len(new):
                rows[new] = self._ask_language_model(self.prefix.take(new))
            self.next_log_probs[:n] = rows

    def _ask_language_model(self, prefixes: Array) -> Array:
        assert self.prior.language_model is not None
        rows = np.asarray(self.prior.language_model([self.texts[p] for p in prefixes.tolist()]), dtype=np.float64)
        if rows.shape != (len(prefixes), self.classes) or np.isnan(rows).any():
            raise InputError(
                f"the language model gave {rows.shape} for {len(prefixes)} prefixes; "
                f"expected log-probabilities ({len(prefixes)}, {self.classes}) without NaN"
            )
        return rows

    def results(self) -> list[list[Decoded]]:
        """The strings of each sequence, best first."""
        scores = self.total + self.bonus
        if self.prior.lexicon is not None:
            scores[~self.prior.lexicon.complete[self.states]] = -np.inf
        # From the last label of every prefix back to the first, all at once; -1 before the first.
        letters, prefix = [np.full(len(self.prefix), -1)], self.prefix
        while (prefix != self.none).any():
            letters.append(self.label_of[prefix])
            prefix = self.parent_of[prefix]
        texts = np.stack(letters[::-1], axis=1)
        found = []
        for begin in range(0, len(scores), self.width):
            slots = begin + np.argsort(-scores[begin : begin + self.width], kind="stable")
            slots = slots[scores[slots] > -np.inf]
            rows, values = texts[slots], scores[slots].tolist()
            found.append([Decoded(row[row >= 0].tolist(), value) for row, value in zip(rows, values, strict=True)])
        return found


def _checked(log_probs: Tensor, lengths: Tensor | Sequence[int] | None, blank: int) -> Tensor:
    """The number of steps of each sequence."""
    if log_probs.ndim != 3 or log_probs.shape[2] < 2 or not log_probs.is_floating_point():
        raise InputError(
            f"log_probs must be float (T, B, K) with K >= 2, got {log_probs.dtype} {tuple(log_probs.shape)}"
        )
    steps, count, classes = log_probs.shape
    if not 0 <= blank < classes:
        raise InputError(f"blank={blank} is no class of {classes}; it is 0 in torch's CTC loss")
    if log_probs.isnan().any():
        raise InputError("log_probs contain nan; did the model diverge?")
    if log_probs.numel() and log_probs.max() > 1e-3:
        raise InputError(
            f"log_probs reach {log_probs.max():.3g}; log-probabilities are at most 0: apply log_softmax(2)"
        )
    counts = torch.full((count,), steps) if lengths is None else torch.as_tensor(lengths).cpu().long()
    if counts.shape != (count,) or (count and not 0 <= int(counts.min()) <= int(counts.max()) <= steps):
        raise InputError(f"lengths must be {count} numbers from 0 to {steps}, got {counts.tolist()}")
    return counts
