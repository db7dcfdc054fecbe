"""The system calls of the reactor that Cython's own libc declarations do not cover (Linux)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, const void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_cond_init(pthread_cond_t *, const void *)
    int pthread_cond_destroy(pthread_cond_t *)
    int pthread_cond_signal(pthread_cond_t *)
    int pthread_cond_broadcast(pthread_cond_t *)
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void *ptr
        int fd
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
        EPOLLET
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout)


cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned int initial, int flags)


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cdef extern from "<sys/socket.h>" nogil:
    ctypedef uint32_t socklen_t
    ctypedef uint16_t sa_family_t
    struct sockaddr:
        sa_family_t sa_family
    struct sockaddr_storage:
        sa_family_t ss_family
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
    enum:
        AF_INET
        AF_INET6
        SOCK_STREAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
        SO_SNDBUF
        SO_RCVBUF
        SO_KEEPALIVE
        MSG_NOSIGNAL
        MSG_DONTWAIT
        SHUT_WR
    int socket(int family, int kind, int protocol)
    int connect(int fd, const sockaddr *address, socklen_t size)
    int accept4(int fd, sockaddr *address, socklen_t *size, int flags)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
    int getpeername(int fd, sockaddr *address, socklen_t *size)
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    int shutdown(int fd, int how)


cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        sa_family_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        sa_family_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    enum:
        IPPROTO_TCP
    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)


cdef extern from "<linux/tcp.h>" nogil:
    # linux/tcp.h, not netinet/tcp.h: the latter's tcp_info lacks nothing we use, but both cannot be had.
    struct tcp_info:
        uint8_t tcpi_state
        uint8_t tcpi_retransmits
        uint8_t tcpi_probes
        uint32_t tcpi_unacked
        uint32_t tcpi_last_ack_recv
    enum:
        TCP_NODELAY
        TCP_KEEPIDLE
        TCP_KEEPINTVL
        TCP_KEEPCNT
        TCP_USER_TIMEOUT
        TCP_NOTSENT_LOWAT
        TCP_INFO
        TCP_ULP


cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *source, char *text, socklen_t size)
    int inet_pton(int family, const char *text, void *target)


cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buffer, size_t size)
    ssize_t write(int fd, const void *buffer, size_t size)
    int close(int fd)
    int dup(int fd)


cdef extern from "<sys/resource.h>" nogil:
    ctypedef unsigned long rlim_t
    struct rlimit:
        rlim_t rlim_cur
    enum:
        RLIMIT_NOFILE
    int getrlimit(int resource, rlimit *limit)


cdef extern from "<fcntl.h>" nogil:
    enum:
        F_DUPFD_CLOEXEC
        F_SETFL
        F_GETFL
        O_NONBLOCK
        O_RDONLY
        O_CLOEXEC
    int fcntl(int fd, int command, ...)
    int open(const char *path, int flags, ...)


cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
        TIMER_ABSTIME
    int clock_gettime(int clock, timespec *now)
    int clock_nanosleep(int clock, int flags, const timespec *until, timespec *left)


cdef extern from "<errno.h>" nogil:
    int errno
    enum:
        EAGAIN
        EINTR
        EINPROGRESS
        EMFILE
        ENFILE
        ENOBUFS
        ENOMEM
        ECONNABORTED
        ECONNRESET
        EPIPE
        ETIMEDOUT
        ECONNREFUSED
        EHOSTUNREACH
        ENETUNREACH
        EINVAL
        ENOTCONN


cdef inline uint64_t monotonic() noexcept nogil:
    """Nanoseconds of CLOCK_MONOTONIC."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1000000000 + <uint64_t> now.tv_nsec


cdef extern from "<sys/random.h>" nogil:
    enum:
        GRND_NONBLOCK
    ssize_t getrandom(void *data, size_t size, unsigned int flags)
