"""Is a peer's certificate one that we trust: what Go's crypto/x509 asks, by way of OpenSSL.

OpenSSL's own verification decides wherever it can build a chain. The certificates of KubeArmor's operator defeat it: a
leaf's subject equals its issuer and it has no authority key id, so that OpenSSL takes it for self-signed and never
looks at the trusted root (error 18, with partial chains, too); and the root was signed with a key that nobody has.
For those there is a second look, at a leaf that claims to be issued by the root itself: the root's key signed it, both
are in time, its key and digest are strong enough, it is meant for the use. (crypto/x509 finds issuers by name and
signature alone, and takes a root's key on trust: Certificate.Verify.)
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t

from relay.native.address cimport address_bytes
from relay.native.openssl cimport (
    ASN1_TIME, ASN1_TIME_to_tm, EVP_PKEY, EVP_PKEY_get_security_bits, EXFLAG_BCONS, EXFLAG_CA, EXFLAG_CRITICAL,
    EXFLAG_INVALID, EXFLAG_V1, ERR_clear_error, KU_KEY_CERT_SIGN, NID_name_constraints, X509,
    X509_CHECK_FLAG_ALWAYS_CHECK_SUBJECT, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, X509_CHECK_FLAG_NO_WILDCARDS,
    X509_NAME_cmp, X509_STORE_CTX, X509_STORE_CTX_get0_cert,
    X509_STORE_CTX_get_error, X509_V_ERR_CA_MD_TOO_WEAK, X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID,
    X509_V_ERR_CERT_SIGNATURE_FAILURE, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_EE_KEY_TOO_SMALL,
    X509_V_ERR_HOSTNAME_MISMATCH,
    X509_V_ERR_IP_ADDRESS_MISMATCH,
    X509_V_ERR_INVALID_EXTENSION, X509_V_ERR_INVALID_PURPOSE, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
    X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION, X509_V_OK, XKU_ANYEKU,
    XKU_SSL_CLIENT, XKU_SSL_SERVER, X509_check_host, X509_check_ip, X509_cmp_current_time, X509_get0_notAfter,
    X509_get0_notBefore,
    X509_get0_pubkey, X509_get_ext_by_NID, X509_get_extended_key_usage, X509_get_extension_flags,
    X509_get_issuer_name, X509_get_key_usage, X509_get_signature_info, X509_get_subject_name, X509_verify,
    X509_verify_cert, timegm, tm,
)
from relay.native.posix cimport sockaddr_storage

cdef enum:
    # OpenSSL's security level 2: RSA of 2048 bits, SHA-224.
    CERTIFICATE_SECURITY_LEVEL = 2
    CERTIFICATE_SECURITY_BITS = 112
    # Names that a client must carry: as they stand, among the DNS names or in the subject.
    ONE_NAME = X509_CHECK_FLAG_ALWAYS_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS


cdef inline int certificate_in_time(X509 *certificate) noexcept nogil:
    """X509_V_OK, or the error that says that it is too early or too late for it, by the wall clock."""
    if X509_cmp_current_time(X509_get0_notBefore(certificate)) >= 0:
        return X509_V_ERR_CERT_NOT_YET_VALID
    if X509_cmp_current_time(X509_get0_notAfter(certificate)) <= 0:
        return X509_V_ERR_CERT_HAS_EXPIRED
    return X509_V_OK


cdef inline int64_t certificate_end(X509 *certificate) noexcept nogil:
    """When it ends, in seconds since the epoch; 0 where it does not say so in a form that can be read."""
    cdef tm broken
    if ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &broken) != 1:
        return 0
    return timegm(&broken)


cdef inline bint certificate_is_authority(X509 *certificate) noexcept nogil:
    """Whether it may sign others: says so itself, or is of a version that cannot (as Go's CheckSignatureFrom)."""
    cdef uint32_t flags = X509_get_extension_flags(certificate)
    if flags & EXFLAG_BCONS:
        if not flags & EXFLAG_CA:
            return False
    elif not flags & EXFLAG_V1:
        return False
    return X509_get_key_usage(certificate) & KU_KEY_CERT_SIGN != 0


cdef inline bint certificate_for(X509 *certificate, bint server) noexcept nogil:
    """Whether its extended key usage, if it has one, allows the use as a TLS server, or as a client."""
    cdef uint32_t usage = X509_get_extended_key_usage(certificate)
    return usage == UINT32_MAX or usage & ((XKU_SSL_SERVER if server else XKU_SSL_CLIENT) | XKU_ANYEKU) != 0


cdef inline int certificate_issued_by(X509 *leaf, X509 *root, bint server) noexcept nogil:
    """Whether the root itself issued a leaf that is fit for the use: X509_V_OK, or the first thing that is wrong."""
    cdef uint32_t flags = X509_get_extension_flags(leaf)
    cdef EVP_PKEY *key = X509_get0_pubkey(leaf)
    cdef int bits = 0
    cdef int status
    if X509_NAME_cmp(X509_get_issuer_name(leaf), X509_get_subject_name(root)) != 0:
        return X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    if X509_get_ext_by_NID(root, NID_name_constraints, -1) >= 0:
        # Constraints on names are OpenSSL's to check.
        return X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
    if X509_verify(leaf, X509_get0_pubkey(root)) != 1:
        return X509_V_ERR_CERT_SIGNATURE_FAILURE
    if X509_get_signature_info(leaf, NULL, NULL, &bits, NULL) != 1 or bits < CERTIFICATE_SECURITY_BITS:
        return X509_V_ERR_CA_MD_TOO_WEAK
    if key == NULL or EVP_PKEY_get_security_bits(key) < CERTIFICATE_SECURITY_BITS:
        return X509_V_ERR_EE_KEY_TOO_SMALL
    if flags & EXFLAG_INVALID:
        return X509_V_ERR_INVALID_EXTENSION
    if flags & EXFLAG_CRITICAL:
        return X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION
    status = certificate_in_time(leaf)
    if status == X509_V_OK:
        status = certificate_in_time(root)
    if status == X509_V_OK and not (certificate_for(leaf, server) and certificate_for(root, server)):
        status = X509_V_ERR_INVALID_PURPOSE
    return status


cdef inline int certificate_verdict(X509_STORE_CTX *store, X509 *root, bint server) noexcept nogil:
    """Whether the peer's certificate leads to the root: X509_V_OK, or why not. Names are not looked at.

    `server`: the peer is the server.
    """
    cdef int error
    cdef int status
    if X509_verify_cert(store) == 1:
        return X509_V_OK
    error = X509_STORE_CTX_get_error(store)
    if not (error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT or error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
            or error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
            or error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            or error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE):
        return error
    status = certificate_issued_by(X509_STORE_CTX_get0_cert(store), root, server)
    ERR_clear_error()
    # That somebody else signed it says more than that OpenSSL found no issuer.
    return status


cdef inline bint certificate_carries(X509 *certificate, const char *names) noexcept nogil:
    """Whether it carries one of some names, as DNS name or as common name; each ends with a NUL, the last is empty."""
    while names[0]:
        # With the size 0 the name ends at its NUL.
        if X509_check_host(certificate, names, 0, ONE_NAME, NULL) == 1:
            return True
        while names[0]:
            names += 1
        names += 1
    return False


cdef inline int certificate_named(X509 *certificate, const char *name, const sockaddr_storage *address) noexcept nogil:
    """Whether it is the one of a server that was reached by a DNS name, or, without one, at an address."""
    cdef const uint8_t *bytes
    cdef size_t size
    if name[0]:
        # The size 0: the name ends at its NUL. (A server's common name counts for nothing: RFC 9525, 2.)
        if X509_check_host(certificate, name, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1:
            return X509_V_OK
        return X509_V_ERR_HOSTNAME_MISMATCH
    bytes = address_bytes(address, &size)
    if size and X509_check_ip(certificate, bytes, size, 0) == 1:
        return X509_V_OK
    return X509_V_ERR_IP_ADDRESS_MISMATCH
