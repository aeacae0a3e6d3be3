# One image for every process: gateway, shop, worker, sandbox; the command chooses.
# The servers (Redis, PostgreSQL) are images of their own: see compose.yaml.

FROM python:3.13-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
# For the walk of a request as machine code (gateway/compiled.py); the compiler stays behind with this stage.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/venv && python -m venv /opt/compiler
COPY pyproject.toml constraints.txt README.md ./
COPY gateway/ gateway/
COPY shop_backend/ shop_backend/
COPY ops/ ops/
# Editable, so that templates, scripts and pictures stand where the sources say.
RUN /opt/venv/bin/pip install --constraint constraints.txt --editable . \
    && /opt/compiler/bin/pip install --constraint constraints.txt --editable '.[compile]' \
    && { /opt/compiler/bin/python -m gateway compile || echo 'the gateway will run from its sources'; } \
    && /opt/venv/bin/python -m compileall -q gateway shop_backend ops

FROM python:3.13-slim-trixie
RUN groupadd --gid 10001 tidegate \
    && useradd --uid 10001 --gid tidegate --no-create-home --home-dir /data --shell /usr/sbin/nologin tidegate \
    && install -d -o tidegate -g tidegate -m 0700 /data /keys /gate-keys
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
COPY config/ config/
COPY scripts/container-entrypoint /usr/local/bin/container-entrypoint
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TIDEGATE_HOST=0.0.0.0 \
    TIDEGATE_ADMIN_HOST=0.0.0.0 \
    TIDEGATE_DATA_DIR=/data
USER tidegate
EXPOSE 8000 9900
STOPSIGNAL SIGTERM
# The gateway's; compose.yaml gives the other processes their own.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9900/readyz', timeout=2)"]
ENTRYPOINT ["container-entrypoint"]
CMD ["tidegate", "gateway", "--config", "/app/config/gateway.yaml"]
