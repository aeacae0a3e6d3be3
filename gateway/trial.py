"""Tries what a configuration names, keys, fallbacks, authorities and a log, before anything depends on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path as File

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


def why(failure: OSError | ValueError, raw: bytes, name: str, environment: Mapping[str, str]) -> ConfigError:
    """Why a configuration that is good as such can't be had here, with the key at fault if trying tells."""
    try:
        load_and_try(raw, name, environment)
    except ConfigError as error:
        return error
    said = str(failure)
    if isinstance(failure, OSError) and failure.strerror:
        said = failure.strerror.lower() + (f": {failure.filename}" if failure.filename else "")
    return ConfigError(name, [Mistake(0, "", f"can't be used by this process: {said}")])


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
    log = config.access_log.file
    if log is not None and str(log) != "-" and (said := _unwritable(log)):
        yield ("access_log", "file"), f"{log} can't be written: {said}"


def _unwritable(file: File) -> str | None:
    """What keeps this process from appending to a file, as far as that can be known without doing it."""
    folder, user = file.parent, f"user {os.geteuid()}"
    try:
        if file.is_dir():
            return "that is a folder; name a file in it"
        if file.exists():
            return None if _may(file, os.W_OK) else f"{user} may not; let that user, or name another file"
        if not folder.is_dir():
            return f"there is no folder {folder}; make it, or name another file"
    except PermissionError:
        return f"{user} may not look there; let that user, or name another file"
    if not _may(folder, os.W_OK | os.X_OK):
        return f"{user} may make no file in {folder}; let that user, or name another file"
    return None


def _may(path: File, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
