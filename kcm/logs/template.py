"""A prompt template: the messages of a chat request, in which one text varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from kcm.config import Config
from kcm.logs.reading import ReplyReading


class Message(Config):
    """A message that every request of a template repeats."""

    role: str = Field(description="system, developer, user or assistant")
    content: str = Field(description="its text")


class Template(Config):
    """What the requests of one classification prompt have in common.

    A request consists of `messages`, word for word, then one user message: `before`, the text to classify, `after`.
    """

    messages: tuple[Message, ...] = Field((), description="the messages before the last, system prompt included")
    before: str = Field("", description="what the last message says before the text")
    after: str = Field("", description="what the last message says after the text")
    replies: dict[str, str] = Field({}, description="the reply for each label, as the large model words it")
    reading: ReplyReading = Field(ReplyReading(), description="where in a reply of the large model the label is")

    def text(self, messages: Sequence[Mapping[str, object]]) -> str | None:
        """The text to classify in a request's `messages`; None if the request has another template.

        Each message maps `role` and `content`; a content that is no string (parts, images) matches no template.
        """
        *fixed, last = messages or [{}]
        if len(fixed) != len(self.messages) or last.get("role") != "user":
            return None
        if any(
            (m.get("role"), m.get("content")) != (own.role, own.content)
            for m, own in zip(fixed, self.messages, strict=True)
        ):
            return None
        content = last.get("content")
        if not isinstance(content, str) or len(content) < len(self.before) + len(self.after):
            return None
        if not content.startswith(self.before) or not content.endswith(self.after):
            return None
        return content[len(self.before) : len(content) - len(self.after)]

    def reply(self, label: str) -> str:
        """The reply that a caller of this template expects for `label`."""
        return self.replies.get(label, label)
