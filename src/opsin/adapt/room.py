"""What adaptation brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, find_room, share

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
    checks="opsin.adapt.shift:check",
    options={
        "predict": _CLASSIFY.options["predict"],
        "data": (
            Option(
                "against",
                str,
                "Compare this domain with another: how far apart they are, which classes are, and whether adaptation "
                "is likely to help.",
                metavar="SOURCE",
                decides=True,
            ),
            Option(
                "features",
                str,
                "With --against: what is compared, pixels, or what a run or published weights see.",
                metavar="RUN|pixels",
            ),
            Option("points", int, "With --against: how many images of each domain are looked at; 1000.", minimum=20),
        ),
    },
    commands={"adapt": "opsin.adapt.command:adapt"},
    examples={
        "adapt": (
            "adapt --source shop/ --target phone/ --method dann --model resnet18 --weights imagenet1k",
            "adapt --source photos/ --source paintings/ --target sketches/ --method cdan_e --model resnet18",
            "adapt --source photos/ --source paintings/ --source cartoons/ --method vrex --model resnet18",
        ),
    },
)
