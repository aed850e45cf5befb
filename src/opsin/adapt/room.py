"""What adaptation brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Room, find_room, share

_CLASSIFY = find_room("classify")  # whose networks, data, answers and metrics it takes

ROOM = Room(
    task="adapt",
    help="a classifier for images of another domain, whose labels nobody has",
    hub_tag="image-classification",
    formats=_CLASSIFY.formats,
    trains="opsin.adapt.task:AdaptTask",
    predicts="opsin.adapt.predict:AdaptPredictor",
    evaluates="opsin.adapt.evaluate:AdaptEvaluator",
    section="opsin.adapt.recipe:AdaptSection",
    starts="opsin.adapt.starting:choose",
    metrics=(
        *_CLASSIFY.metrics,
        Metric("entropy", "lower"),
        Metric("dev", "lower"),
        Metric("snd", "higher"),
        share("worst_domain_accuracy"),
    ),
    monitor="val_accuracy",
    options={"predict": _CLASSIFY.options["predict"]},
    commands={"adapt": "opsin.adapt.command:adapt"},
    examples={
        "adapt": (
            "adapt --source shop/ --target phone/ --method dann --model resnet18 --weights imagenet1k",
            "adapt --source photos/ --source paintings/ --target sketches/ --method cdan_e --model resnet18",
            "adapt --source photos/ --source paintings/ --source cartoons/ --method vrex --model resnet18",
        ),
    },
)
