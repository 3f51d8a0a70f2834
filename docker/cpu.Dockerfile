# syntax=docker/dockerfile:1
# The service on a CPU, with the bundled artifact, and parseq-read and parseq-evaluate. From the project's root (docs/container_images.md says more):
#
#   docker build -f docker/cpu.Dockerfile -t parseq-service:0.1.0-cpu .

# The tag fixes Python's minor version and the distribution, and moves with their security fixes. For the same image every time,
# name the base by its digest: --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS builder
WORKDIR /build
# Wheels only: no package runs code of its own while it is installed.
ENV PIP_CACHE_DIR=/var/cache/pip \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ONLY_BINARY=:all:
# Without pip, since nothing is installed into them once they are built.
RUN python3 -m venv --without-pip /opt/venv && \
    python3 -m venv --without-pip /opt/build
# What changes seldom comes first: a change of the service's code reuses these layers.
COPY docker/requirements-build.txt docker/requirements-cpu.txt ./
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m pip --python /opt/build/bin/python3 install --require-hashes -r requirements-build.txt && \
    python3 -m pip --python /opt/venv/bin/python3 install --require-hashes -r requirements-cpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY artifact artifact
COPY model model
COPY reading reading
COPY service service
# The commands of the parts that are not in here would only fail.
RUN /opt/build/bin/python3 -c "from setuptools.build_meta import build_wheel; build_wheel('wheels')" && \
    python3 -m pip --python /opt/venv/bin/python3 install --no-cache-dir --no-index --no-deps wheels/*.whl && \
    find /opt/venv/bin -name 'parseq-*' ! -name parseq-serve ! -name parseq-read ! -name parseq-evaluate -delete

FROM ${PYTHON_IMAGE} AS runtime
# The latest security fixes of the distribution's release: no version is named.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends tini && \
    rm -rf /var/lib/apt/lists/*
# A number of its own that no user of the host is likely to have; it owns nothing in here.
RUN groupadd --gid 10001 parseq && \
    useradd --uid 10001 --gid parseq --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin parseq
COPY --from=builder /opt/venv /opt/venv
# The root may be read-only: everything is compiled already, and the only cache, for TensorRT's engines, would be in /tmp.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/tmp \
    PARSEQ_HOST=0.0.0.0
ARG PYTHON_IMAGE
ARG REVISION=unknown
LABEL org.opencontainers.image.title="parseq-service" \
      org.opencontainers.image.description="PARSeq word recognition over HTTP, on a CPU" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
USER 10001:10001
EXPOSE 8000
# SIGTERM turns readiness off, answers what is in flight and ends with 0. Give it longer than PARSEQ_DRAIN_TIMEOUT_S (30 s):
# docker stop --time 40.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python3", "-m", "service.healthcheck"]
# The server handles its signals itself, and exec form lets them reach it. tini is for the second or two before it can: the
# kernel drops a SIGTERM to a first process without a handler, and a container stopped as it starts would last until it is killed.
ENTRYPOINT ["/usr/bin/tini", "--", "parseq-serve"]
