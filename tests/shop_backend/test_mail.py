"""Mails are well-formed, whatever a product is called or a letter says."""

from __future__ import annotations

import email
import email.policy
from typing import cast

from hypothesis import example, given
from hypothesis import strategies as st

from shop_backend.letters import Message
from shop_backend.mail import compose

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(_TEXT, st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])), max_size=5))
@example("Your key\r\nBcc: all@shop.example", ["."])
@example("=?utf-8?q?no?=", ["x" * 2000])
@example("您的 Plain 卡密已发货" * 9, ["€", "", "卡"])
def test_any_letter_is_one_mail(subject: str, lines: list[str]) -> None:
    """Subject and text come out as they went in, and nothing in them makes another field."""
    text = "\n".join(lines)
    raw = compose("shop@shop.example", "buyer@b.example", Message("ref-1", subject, text))
    mail = cast("email.message.EmailMessage", email.message_from_bytes(raw, policy=email.policy.default))
    assert [name for name, _ in mail.items()] == [
        *("From", "To", "Date", "Message-ID", "Auto-Submitted", "Subject"),
        *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
    ]
    assert (mail["From"], mail["To"]) == ("shop@shop.example", "buyer@b.example")
    assert mail.get_content().splitlines() == (text.splitlines() or ([""] if text.isascii() else []))
    assert all(len(line) <= 1000 for line in raw.split(b"\r\n"))
    assert b"\n" not in raw.replace(b"\r\n", b"")
    plain = " ".join("".join(c if c.isprintable() else " " for c in subject).split())
    assert " ".join(str(mail["Subject"]).split()) == plain
