"""What people are told, in their language: one text file per occasion, language and channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

Channel = Literal["mail", "sms"]
Occasion = Literal["delivered", "refunding"]
Language = Literal["en", "zh"]

CHANNELS: tuple[Channel, ...] = ("mail", "sms")
OCCASIONS: tuple[Occasion, ...] = ("delivered", "refunding")
LANGUAGES: tuple[Language, ...] = ("en", "zh")  # the first is for everyone else


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        reference: the same when it is sent again, so that whoever receives it can tell.
        subject: empty where the channel has none.
    """

    reference: str
    subject: str
    text: str


class Letters:
    """Writes messages from `OCCASION.LANGUAGE.CHANNEL.txt`; a mail's first line is its subject."""

    def __init__(self) -> None:
        environment = Environment(  # noqa: S701 - plain text: nothing to escape
            loader=PackageLoader("shop_backend", "letters"),
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
        )
        self._templates: dict[tuple[str, str, str], Template] = {
            (occasion, language, channel): environment.get_template(f"{occasion}.{language}.{channel}.txt")
            for occasion in OCCASIONS
            for language in LANGUAGES
            for channel in CHANNELS
        }

    def write(
        self, occasion: str, language: str, channel: str, *, reference: str, values: Mapping[str, Any]
    ) -> Message:
        """The message; in the first language when there is none in this one.

        Raises:
            KeyError: there is no such occasion or channel.
        """
        known = language if language in LANGUAGES else LANGUAGES[0]
        template = self._templates[occasion, known, channel]
        text = template.render(values).strip() + "\n"
        subject = ""
        if channel == "mail":
            subject, _, text = text.partition("\n")
            text = text.lstrip("\n")
        return Message(reference, " ".join(subject.split()), text)
