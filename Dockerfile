# The relay as a container image: Debian's Python, libnghttp2 and OpenSSL, the locked packages, the relay.
#
#   docker build --build-arg VERSION=0.1.0 -t kubearmor-relay-server:0.1.0 .      (or: make image)
#
# Python packages come at the versions and hashes of the lock files, everything else from the base's
# distribution. Where packages come through a mirror, give pip its configuration, and the mirror's
# certificate authority, as build secrets; no trace of them is left in the image:
#
#   docker build --secret id=pip_conf,src=pip.conf --secret id=ca,src=ca.crt ...
#   (pip.conf: [global], index-url = ..., cert = /run/secrets/ca)

ARG BASE=debian:bookworm-slim

# --- what runs needs of the distribution ----------------------------------------------------
FROM ${BASE} AS python
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libnghttp2-14 libssl3 python3 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

# --- the build: compiler and headers stay here ----------------------------------------------
FROM python AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        binutils gcc libc6-dev libnghttp2-dev libssl-dev pkg-config python3-dev python3-venv
WORKDIR /build
RUN python3 -m venv tools && python3 -m venv --without-pip /KubeArmor/venv

# The tools of the build (Cython, setuptools, protoc), then what the relay needs to run.
COPY requirements.lock requirements-dev.lock ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca \
    tools/bin/pip install --no-cache-dir --no-compile --require-hashes -r requirements-dev.lock \
    && tools/bin/pip --python /KubeArmor/venv/bin/python3 install --no-cache-dir --no-compile \
        --only-binary :all: --require-hashes -r requirements.lock

COPY LICENSE README.md pyproject.toml setup.py ./
COPY protos protos
COPY scripts/make_protos.py scripts/make_schema.py scripts/make_json_table.py scripts/
COPY relay relay
RUN tools/bin/pip wheel -q --no-cache-dir --no-build-isolation --no-deps --no-index -w dist . \
    && tools/bin/pip --python /KubeArmor/venv/bin/python3 install --no-compile --no-deps --no-index dist/*.whl \
    && strip --strip-debug /KubeArmor/venv/lib/python3*/site-packages/relay/*.so

# Of the Kubernetes client the relay imports configuration and HTTP (relay/kube_config.py says how), and the
# classes of all objects are nine tenths of it. The last line fails where something is missing.
RUN rm -rf /KubeArmor/venv/lib/python3*/site-packages/kubernetes/client \
        /KubeArmor/venv/lib/python3*/site-packages/kubernetes/aio/client/api \
        /KubeArmor/venv/lib/python3*/site-packages/kubernetes/aio/client/models \
    && /KubeArmor/venv/bin/python3 -B -c 'from relay import kube_config; kube_config.rest_client()'

# Bytecode that holds whatever a file's time stamp becomes on its way: nothing can be compiled, or kept,
# on a read-only file system.
RUN /KubeArmor/venv/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /KubeArmor/venv/lib \
    && ln -s venv/bin/kubearmor-relay-server /KubeArmor/kubearmor-relay-server \
    && mkdir -p /KubeArmor/licenses && cp LICENSE /KubeArmor/licenses/LICENSE

# --- the image ------------------------------------------------------------------------------
FROM python
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="kubearmor-relay-server" \
    org.opencontainers.image.description="An event relay for KubeArmor nodes: every node's feeds in, one place to subscribe out" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 1000 relay \
    && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin relay
COPY --from=build /KubeArmor /KubeArmor
# For `relay observe` and the like, run by hand in the container.
ENV PATH=/KubeArmor/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /
# By number, so that runAsNonRoot can be checked.
USER 1000:1000
EXPOSE 32767
ENTRYPOINT ["/KubeArmor/kubearmor-relay-server"]
