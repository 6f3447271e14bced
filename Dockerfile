# syntax=docker/dockerfile:1
# Two stages: the first has pip and builds; the second has Python, the installed packages, and nothing to build with.
FROM python:3.12-bookworm AS build
WORKDIR /src
# What the vendors' clouds need is locked with its hashes.  For the policy `difficulty`, 59 MB more: --build-arg EXTRAS=aws,google,azure,difficulty
ARG EXTRAS=aws,google,azure
RUN python -m venv /opt/tollgate
COPY requirements.lock constraints.txt pyproject.toml README.md ./
COPY gateway ./gateway
COPY router_policies ./router_policies
# Of botocore's 28 MB of descriptions only those by which it finds credentials are kept; uvloop comes with 10 MB of debugging.
RUN /opt/tollgate/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock \
    && /opt/tollgate/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
    && /opt/tollgate/bin/pip uninstall --yes pip \
    && find /opt/tollgate -name '__pycache__' -prune -exec rm -rf {} + \
    && find /opt/tollgate -path '*/botocore/data/*' -prune -type d ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -rf {} + \
    && find /opt/tollgate -path '*/uvloop/*.so' -exec strip --strip-debug {} +

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="Tollgate" \
      org.opencontainers.image.description="Cost-aware routing gateway for LLM APIs, under hard spend caps"
RUN useradd --system --uid 10001 --no-create-home tollgate \
    && install --directory --owner=tollgate --mode=0750 /var/lib/tollgate
COPY --from=build /opt/tollgate /opt/tollgate
COPY config/gateway.yaml /etc/tollgate/gateway.yaml
ENV PATH=/opt/tollgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TMPDIR=/var/lib/tollgate
# The root file system can be read-only: the spool, the metrics of several workers and an SQLite file live here.
VOLUME /var/lib/tollgate
WORKDIR /var/lib/tollgate
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tollgate"]
CMD ["serve", "--config", "/etc/tollgate/gateway.yaml", "--host", "0.0.0.0"]
