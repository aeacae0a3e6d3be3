"""What the gateway says to people, in the languages that it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.errors import (
    FeatureOff,
    Forbidden,
    Internal,
    NotFound,
    Overloaded,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)


class Words(NamedTuple):
    """What is said in one language.

    Attributes:
        tag: of the language.
        errors: title and text, by the type of the problem.
        other: the same, for all whose request is at fault.
        waits: takes a span of time.
        spans: seconds, minutes, hours; each takes a number.
        again: on the button that asks once more.
        start: on the one that leads to the site's beginning.
    """

    tag: str
    errors: Mapping[str, tuple[str, str]]
    other: tuple[str, str]
    waits: str
    spans: tuple[str, str, str]
    again: str
    start: str

    def wait(self, seconds: int) -> str:
        """How long it takes, as people say it."""
        few, minutes, hours = self.spans
        if seconds < 120:
            return self.waits % (few % seconds)
        if seconds < 7200:
            return self.waits % (minutes % round(seconds / 60))
        return self.waits % (hours % round(seconds / 3600))


WORDS = {
    "en": Words(
        tag="en",
        errors={
            RateLimited.type: (
                "One moment, please",
                "More requests came at once than may pass, from you or from all. This one was not passed on.",
            ),
            Overloaded.type: (
                "It is very busy just now",
                "More people came than can be served at once. Nothing is wrong on your side.",
            ),
            FeatureOff.type: (
                "Switched off for now",
                "This part of the site rests, so that the rest can be served.",
            ),
            UpstreamUnavailable.type: (
                "Back in a moment",
                "The site does not answer well just now, and is left alone until it does.",
            ),
            UpstreamError.type: (
                "No answer",
                "The site gave no valid answer. That is no fault of yours.",
            ),
            UpstreamTimeout.type: (
                "No answer in time",
                "The site took too long to answer. That is no fault of yours.",
            ),
            Internal.type: (
                "Something went wrong",
                "The fault is on this side, and has been noted.",
            ),
            NotFound.type: (
                "Nothing here",
                "There is no page at this address. It may have been mistyped, or moved.",
            ),
            Forbidden.type: (
                "Not allowed",
                "You are not let in here. If that is a mistake, ask whoever runs this site.",
            ),
        },
        other=("That did not work", "The request could not be taken as it was sent."),
        waits="This page tries again by itself in %s. There is nothing that you need to do.",
        spans=("%d s", "about %d minutes", "about %d hours"),
        again="Try again",
        start="To the start page",
    ),
    "zh": Words(
        tag="zh-CN",
        errors={
            RateLimited.type: (
                "请稍候",
                "同时到来的请求太多，可能来自您，也可能来自所有访客。这个请求没有被转交。",
            ),
            Overloaded.type: (
                "现在访问的人很多",
                "同时到访的人数超过了能服务的数量。您的设备和网络没有问题。",
            ),
            FeatureOff.type: ("暂时关闭", "网站的这一部分暂时停用，以便其余部分继续服务。"),
            UpstreamUnavailable.type: ("马上回来", "网站目前无法正常响应，正在等待它恢复。"),
            UpstreamError.type: ("没有响应", "网站没有给出有效的响应。这不是您的问题。"),
            UpstreamTimeout.type: ("响应超时", "网站响应的时间太长。这不是您的问题。"),
            Internal.type: ("出错了", "问题出在我们这边，已经记录下来。"),
            NotFound.type: ("这里什么也没有", "这个地址没有页面，可能是输入有误，或页面已经移走。"),
            Forbidden.type: ("不允许访问", "您不能访问这里。如果这是误会，请联系网站的管理者。"),
        },
        other=("请求没有成功", "无法处理这样发送的请求。"),
        waits="本页将在%s后自动重试，您无需做任何操作。",
        spans=(" %d 秒", "大约 %d 分钟", "大约 %d 小时"),
        again="再试一次",
        start="回到首页",
    ),
}
