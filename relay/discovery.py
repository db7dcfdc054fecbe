"""Discovery: the KubeArmor pods of a cluster, as claims on nodes."""

from __future__ import annotations

from relay import log
from relay.claims import Claim, Claims
from relay.objects import Pod
from relay.settings import Address, is_ip

logger = log.logger(__name__)

OWNER = "pod/"  # and namespace/name


class Discovery:
    """Claims an address for each pod that has one: a target of reflect.Reflector.

    A pod that has finished, lost its address or gone takes its claim with it; one that moves claims
    the new address. A pod with several addresses is one node: the first is dialled first, and the
    others where it does not answer.
    """

    def __init__(self, claims: Claims, port: int) -> None:
        """`port` is the TCP port of the nodes."""
        self._claims = claims
        self._port = port
        self._listed = False

    def put(self, pod: Pod) -> None:
        """A pod is there, new or changed."""
        first, *others = [address for address in pod.addresses if is_ip(address)] or [""]
        owner = OWNER + pod.metadata.key
        if first:
            name = pod.spec.node_name or pod.metadata.key
            self._claims.claim(owner, Claim(Address(first, self._port), name, tuple(others)))
        else:
            self._claims.release(owner)

    def drop(self, key: str) -> None:
        """A pod is gone."""
        self._claims.release(OWNER + key)

    def keep(self, keys: set[str]) -> None:
        """A whole list has been told of: any other pod is gone."""
        self._claims.keep(OWNER, {OWNER + key for key in keys})
        if not self._listed:
            self._listed = True
            found = len(self._claims.owned(OWNER))
            if found:
                logger.info("KubeArmor found", extra=log.fields(pods=len(keys), with_address=found))
            else:
                logger.warning("no KubeArmor pod with an address yet", extra=log.fields(pods=len(keys)))
