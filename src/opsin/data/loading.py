"""Batches for training and evaluation, the same whatever loads them.

The order of an epoch derives from (seed, epoch), every random choice for a sample from (seed, epoch, index). So batches
are equal for any number of workers and processes, and after a resume in the middle of an epoch.

A split with instances gives batches with `instances`, in pixels of the input, and `size`, (height, width) of each
image as it was read; its augmentation is a `DetectionAugmentation`. Where it is known of some images only what they
show, not where, batches have `somewhere` too. Proposals go through the augmentation as regions to ignore do, which
leave an image only when nothing of them is in it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from opsin.data.coordinates import keep_inside, place_masks
from opsin.data.preprocessing import Preprocessing
from opsin.data.source import Split
from opsin.errors import InputError
from opsin.structures import Batch, Instances

Key = tuple[int, int]  # (epoch, index)
Annotated: TypeAlias = tuple[Tensor, Instances]  # an image as read, uint8 (C, H, W), and its boxes and labels
_ORDER = 0xFFFF_FFFF  # stands in the place of an index where the seed is that of an epoch's order
_PROPOSAL = -2  # the label of a proposal among the instances of an image, on their way to the batch


class DetectionAugmentation(Protocol):
    """An image as it was read and its instances -> prepared and randomly changed, with the instances in their place.

    Takes uint8 (C, H, W) and `Instances` with boxes and labels in its pixels; labels of -1, regions to ignore, move
    like others. Gives uint8 (channels, h, w) of the preprocessing's size, and instances in pixels of that. Neither
    argument is changed. It draws from torch's global CPU generator alone, which the loader has seeded with (seed,
    epoch, index).

    One that mixes images (mosaic, MixUp) has an attribute `partners`, the most it can want of one call, and is called
    with a third argument: a `Partners` of that length. A partner is read when it is looked at, so that what is mixed
    only now and then costs no reading else. Without the attribute, or with 0, it is called with two arguments.
    """

    def __call__(self, image: Tensor, instances: Instances, /, *partners: Partners) -> Annotated: ...


class Partners(Sequence[Annotated]):
    """Other examples of a split, chosen by the seeds given; `partners[k]` reads the image, each time anew.

    Any whose boxes are known may come, also the example itself, as in a split of one. One whose boxes are not known
    meets itself alone: beside others, nobody could say any more which part of the image is background.
    """

    def __init__(self, read: Callable[[int], Annotated], indices: Sequence[int]) -> None:
        self.indices = tuple(indices)
        self._read = read

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, place: int) -> Annotated: ...

    @overload
    def __getitem__(self, place: slice) -> Partners: ...

    def __getitem__(self, place: int | slice) -> Annotated | Partners:
        if isinstance(place, slice):
            return Partners(self._read, self.indices[place])
        return self._read(self.indices[place])


class ImageLoader(DataLoader):
    """A DataLoader of `Batch`: image uint8 (B, C, h, w), label, index, path; of a split with instances also `instances`
    and `size`, `somewhere` where not all are boxed, and `proposals` where there are some. Made by `create_loader`.

    `position` is (epoch, batches already trained on): iteration begins there. Iterating does not move it, since workers
    run ahead; the trainer sets it. `len` is always the number of batches in a whole epoch.
    """

    def __init__(self, samples: _Samples, batches: _Batches, workers: int, pin_memory: bool) -> None:
        super().__init__(
            samples,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_as_is,
            pin_memory=pin_memory,
            worker_init_fn=_ignore_interrupt,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else each epoch's start would draw from the global one
        )
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return _raising(super().__iter__())

    @property
    def position(self) -> tuple[int, int]:
        return self.batches.position

    @position.setter
    def position(self, value: tuple[int, int]) -> None:
        self.batches.position = value

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch: to its first batch, unless the position is within it already."""
        self.batches.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """The position, as plain numbers."""
        return {"epoch": self.position[0], "batch": self.position[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from the position that `state_dict` gave."""
        self.position = (state["epoch"], state["batch"])


def create_loader(
    split: Split,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    training: bool = False,
    augmentation: Callable[[Tensor], Tensor] | DetectionAugmentation | None = None,
    proposals: Sequence[Tensor] | None = None,
    masks: bool = False,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool | None = None,
    pin_memory: bool = False,
) -> ImageLoader:
    """A loader of a split's batches.

    training: each epoch in another order. Process `rank` of `world_size` takes places [rank * B, (rank + 1) * B) of
    each global batch of world_size * B. The last, smaller one is dropped, unless it is the only one or `drop_last` says
    otherwise; kept, it is shared out evenly, and repeats samples only where there are fewer than processes.
    Else in order: `rank` takes every world_size-th sample; nothing is dropped or repeated.
    augmentation: what `create_augmentation` gives, in the place of `preprocessing.prepare`; of a split with instances a
    `DetectionAugmentation`. Without one, boxes are cut at the border of the input and those outside it are dropped,
    which only fit "crop" makes happen.
    proposals: of each image of a split with instances, (P, 4) in pixels of the image as read; they are moved and
    cut as boxes are, in their order.
    masks: instances have theirs too, (N, height, width) of the input; InputError names an image without.
    workers: processes that load ahead; 0 loads in this one. An unreadable file raises InputError that names it.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0), ("world_size", world_size, 1)):
        if value < least:
            raise InputError(f"{name} is {value}; expected {least} or more")
    if not 0 <= rank < world_size:
        raise InputError(f"rank is {rank}; expected 0 to {world_size - 1}")
    if training and len(split) == 0:
        raise InputError("the split to train on holds no images")
    if proposals is not None and len(proposals) != len(split):
        raise InputError(f"there are proposals of {len(proposals)} images, and the split has {len(split)}")
    if masks and proposals is not None:
        raise InputError("a loader moves proposals or masks, not both")
    samples = _Samples(split, preprocessing, augmentation, seed, proposals, masks)
    batches = _Batches(len(split), batch_size, training, seed, rank, world_size, drop_last)
    return ImageLoader(samples, batches, workers, pin_memory)


class _Samples(Dataset):
    """Whole batches by their keys. An InputError is returned, not raised: workers would wrap it in their traceback."""

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        augmentation: Any,
        seed: int,
        proposals: Sequence[Tensor] | None = None,
        masks: bool = False,
    ) -> None:
        self.split, self.preprocessing, self.augmentation, self.seed = split, preprocessing, augmentation, seed
        self.proposals, self.masks = proposals, masks
        self.boxed = np.arange(len(split)) if split.boxed is None else np.flatnonzero(split.boxed)

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: list[Key]) -> Batch | InputError:
        state = torch.get_rng_state()
        indices = [index for _, index in keys]
        batch = Batch(
            label=torch.from_numpy(self.split.labels[indices]),
            index=torch.tensor(indices),
            path=[self.split.name(index) for index in indices],
        )
        try:
            if self.split.instances is None:
                batch["image"] = torch.stack([self._image(epoch, index) for epoch, index in keys])
            else:
                images, instances, sizes = zip(*[self._annotated(epoch, index) for epoch, index in keys], strict=True)
                batch["image"], batch["size"] = torch.stack(images), torch.tensor(sizes)
                packed = _Packed.of(instances, self.proposals is not None)
                batch["instances"] = packed  # type: ignore[typeddict-item]
                if (boxed := self.split.boxed) is not None:
                    batch["somewhere"] = [None if boxed[index] else self.split.shown(index) for index in indices]
        except InputError as error:
            return error
        finally:
            torch.set_rng_state(state)
        return batch

    def _image(self, epoch: int, index: int) -> Tensor:
        image = self.split.read(index)
        if self.augmentation is None:
            return self.preprocessing.prepare(image)
        torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index))
        return self.augmentation(image)

    def _annotated(self, epoch: int, index: int) -> tuple[Tensor, Instances, tuple[int, int]]:
        image, instances = self._read(index)
        height, width = image.shape[-2:]
        if self.augmentation is None:
            boxes = self.preprocessing.place_boxes(instances.boxes, (height, width))
            masks = None if instances.masks is None else place_masks(instances.masks, self.preprocessing)
            placed = Instances(boxes, instances.labels, masks=masks)
            return self.preprocessing.prepare(image), keep_inside(placed, self.preprocessing.size), (height, width)
        count = getattr(self.augmentation, "partners", 0)
        pool = self.boxed if self.split.boxed is None or self.split.boxed[index] else np.array([index])
        chosen = [int(pool[derive_seed(self.seed, epoch, index, 1 + k) % len(pool)]) for k in range(count)]
        torch.default_generator.manual_seed(derive_seed(self.seed, epoch, index))
        partners = (Partners(self._read, chosen),) if count else ()
        return *self.augmentation(image, instances, *partners), (height, width)

    def _read(self, index: int) -> Annotated:
        assert self.split.instances is not None
        image, instances = self.split.read(index), self.split.instances[index]
        if self.masks:
            return image, replace(instances, masks=self._masks(index, instances))
        if self.proposals is None:
            return image, instances
        boxes, labels = self.proposals[index], _labels(instances)
        both = torch.cat([labels, labels.new_full((len(boxes),), _PROPOSAL)])
        return image, Instances(torch.cat([instances.boxes, boxes.to(instances.boxes)]), both)

    def _masks(self, index: int, instances: Instances) -> Tensor:
        masks = self.split.masks(index)
        if masks is None:
            raise InputError(f"{self.split.name(index)} has no masks of its objects, only their boxes")
        return masks


class _Packed(NamedTuple):
    """The instances of a batch as few tensors: each tensor that a worker sends costs an open file."""

    boxes: Tensor  # (N, 4), of all images
    labels: Tensor  # (N,)
    counts: Tensor  # (B,)
    proposals: bool  # whether some of them are proposals
    masks: Tensor | None  # (N, H, W)

    @classmethod
    def of(cls, instances: Sequence[Instances], proposals: bool) -> _Packed:
        labels = torch.cat([_labels(one) for one in instances])
        boxes = torch.cat([one.boxes for one in instances])
        masks = [one.masks for one in instances if one.masks is not None]
        counts = torch.tensor([len(one) for one in instances])
        return cls(boxes, labels, counts, proposals, torch.cat(masks) if masks else None)

    def unpack_into(self, batch: Batch) -> None:
        counts = self.counts.tolist()
        masks = [None] * len(counts) if self.masks is None else self.masks.split(counts)
        rows = zip(self.boxes.split(counts), self.labels.split(counts), masks, strict=True)
        batch["instances"] = everything = [Instances(boxes, labels, masks=own) for boxes, labels, own in rows]
        if self.proposals:
            proposed = [labels == _PROPOSAL for labels in self.labels.split(counts)]
            batch["proposals"] = [one.boxes[own] for one, own in zip(everything, proposed, strict=True)]
            batch["instances"] = [one[~own] for one, own in zip(everything, proposed, strict=True)]


def _labels(instances: Instances) -> Tensor:
    return torch.zeros(len(instances), dtype=torch.int64) if instances.labels is None else instances.labels


class _Batches(Sampler[list[Key]]):
    """The keys of one process's batches, from `position` to the end of its epoch."""

    def __init__(
        self,
        length: int,
        batch_size: int,
        training: bool,
        seed: int,
        rank: int,
        world_size: int,
        drop_last: bool | None,
    ) -> None:
        self.length, self.size, self.training, self.seed = length, batch_size, training, seed
        self.rank, self.world_size = rank, world_size
        self.drop_last = drop_last if drop_last is not None else training and length >= batch_size * world_size
        self.position: tuple[int, int] = (0, 0)

    @property
    def sampler(self) -> _Batches:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.position[0]:
            self.position = (epoch, 0)

    def __len__(self) -> int:
        share = self.size * self.world_size if self.training else self.size
        length = self.length if self.training else len(range(self.rank, self.length, self.world_size))
        return length // share if self.drop_last else -(-length // share)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, done = self.position
        places = self._permutation(epoch) if self.training else np.arange(self.rank, self.length, self.world_size)
        share = self.size * self.world_size if self.training else self.size
        chunks = [places[start : start + share] for start in range(done * share, len(self) * share, share)]
        mine = [self._mine(chunk) for chunk in chunks] if self.training else chunks
        return iter([[(epoch, index) for index in chunk.tolist()] for chunk in mine])

    def _mine(self, chunk: np.ndarray) -> np.ndarray:
        """This process's part of a global batch."""
        if len(chunk) == self.size * self.world_size:
            return chunk[self.rank * self.size : (self.rank + 1) * self.size]
        if len(chunk) < self.world_size:  # every process needs a sample, or the others would wait for it
            chunk = np.resize(chunk, self.world_size)
        return np.array_split(chunk, self.world_size)[self.rank]

    def _permutation(self, epoch: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, _ORDER))
        return torch.randperm(self.length, generator=generator).numpy()


def _raising(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, InputError):
            raise batch
        if "instances" in batch:
            batch["instances"].unpack_into(batch)
        yield batch


def _ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C to the main process, which may want to end its step; workers end with their loader."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _as_is(batch: Any) -> Any:
    return batch


def derive_seed(*numbers: int) -> int:
    """One well-mixed seed of 64 bits from several numbers: splitmix64 (Steele et al. 2014), one round a number."""
    state, mask = 0, 0xFFFF_FFFF_FFFF_FFFF
    for number in numbers:
        state = (state + number + 0x9E37_79B9_7F4A_7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58_476D_1CE4_E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D0_49BB_1331_11EB) & mask
        state ^= state >> 31
    return state
