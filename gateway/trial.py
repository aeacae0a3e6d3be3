"""Tries what a configuration names, keys, fallbacks and authorities, before anything depends on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.config import Config, ConfigError, load
from gateway.policies.degrade import build_fallback
from gateway.tokens import load_keys
from gateway.upstream.pool import tls_context
from gateway.yaml_source import Mistake, Path, dotted, parse


def load_and_try(raw: bytes, name: str, environment: Mapping[str, str]) -> Config:
    """As `config.load`, and the files it names hold what they should.

    Raises:
        ConfigError: with every mistake, each with its line.
    """
    config = load(raw, name, environment)
    source = parse(raw, environment)
    mistakes = [Mistake(source.line(path), dotted(path), said) for path, said in _failures(config)]
    if mistakes:
        raise ConfigError(name, mistakes)
    return config


def _failures(config: Config) -> Iterator[tuple[Path, str]]:
    if config.identity.jwt is not None:
        try:
            load_keys(config.identity.jwt)
        except (ValueError, OSError) as error:
            yield ("identity", "jwt", "key_file"), str(error)
    for feature, settings in config.features.items():
        if settings.fallback is not None:
            try:
                build_fallback(settings.fallback)
            except (ValueError, OSError) as error:
                yield ("features", feature, "fallback"), str(error)
    for name, upstream in config.upstreams.items():
        if upstream.tls.ca_file is not None:
            try:
                tls_context(upstream.tls)
            except OSError:  # in OpenSSL's words
                yield (
                    ("upstreams", name, "tls", "ca_file"),
                    f"{upstream.tls.ca_file} holds no certificate (PEM)",
                )
