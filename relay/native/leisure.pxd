"""Reading at leisure: acknowledgements of subscribers that are up to date do not wake the reactor.

A grpc-go client answers each burst of events with WINDOW_UPDATE and PING. Read at once, they cost as much as
the burst itself: a wake-up, a read, and a write for the PING's answer. Nothing hangs on them while the subscriber
has taken everything and its windows are open. So such a connection is watched by an epoll of its own, which is
asked, without waiting, in every turn that the nodes' events cause anyway; and the answer leaves with the next events.
When turns are rare, the second epoll is put into the first one (`armed`), so that nobody waits longer than
LEISURE for an answer. A subscriber that falls behind, or has anything but feeds open, is watched by the first again.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from relay.native.model cimport Connection, Reactor
from relay.native.posix cimport (
    EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLL_CTL_ADD, EPOLL_CTL_DEL, epoll_ctl, epoll_event,
)

cdef enum:
    LEISURE = 2000000          # ns that an acknowledgement may wait
    LEISURE_MS = 2
    SETTLED = 16               # flushes in a row that left nothing, before a connection is watched at leisure
    BRISK = 32                 # turns in a row closer than LEISURE, before the second epoll is disarmed
    QUIET = 3                  # waits of LEISURE in a row that brought nothing, before it is armed


cdef inline bint leisure_watch(Connection *connection, int epoll) noexcept nogil:
    cdef epoll_event event
    memset(&event, 0, sizeof(event))
    event.data.ptr = connection
    event.events = <uint32_t> (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
    return epoll_ctl(epoll, EPOLL_CTL_ADD, connection.fd, &event) == 0


cdef inline void leisure_leave(Connection *connection) noexcept nogil:
    """Watch it promptly again. What is readable by then is reported anew, as for every descriptor that epoll gets."""
    cdef Reactor *reactor = connection.reactor
    connection.settled = 0
    if not connection.leisurely:
        return
    connection.leisurely = False
    reactor.leisurely -= 1
    epoll_ctl(reactor.leisure, EPOLL_CTL_DEL, connection.fd, NULL)
    if not leisure_watch(connection, reactor.epoll):
        # Only without kernel memory: stay where it can be seen.
        if leisure_watch(connection, reactor.leisure):
            connection.leisurely = True
            reactor.leisurely += 1


cdef inline void leisure_judge(Connection *connection) noexcept nogil:
    """After a flush: has the connection nothing but subscribers that have read everything?"""
    cdef Reactor *reactor = connection.reactor
    if (connection.tail != NULL or connection.readers == 0 or connection.waiting_readers != connection.readers
            or connection.stream_count != connection.readers):
        leisure_leave(connection)
        return
    if connection.leisurely:
        return
    connection.settled += 1
    if connection.settled < SETTLED:
        return
    connection.settled = 0
    epoll_ctl(reactor.epoll, EPOLL_CTL_DEL, connection.fd, NULL)
    if leisure_watch(connection, reactor.leisure):
        connection.leisurely = True
        reactor.leisurely += 1
    else:
        leisure_watch(connection, reactor.epoll)


cdef inline void leisure_arm(Reactor *reactor, bint arm) noexcept nogil:
    """Put the second epoll into the first, or take it out."""
    cdef epoll_event event
    memset(&event, 0, sizeof(event))
    event.events = EPOLLIN
    event.data.ptr = &reactor.leisure_wake
    if epoll_ctl(reactor.epoll, EPOLL_CTL_ADD if arm else EPOLL_CTL_DEL, reactor.leisure, &event) == 0:
        reactor.armed = arm
    reactor.quiet_waits = 0
    reactor.brisk_turns = 0


cdef inline void leisure_turn(Reactor *reactor, bint nothing, uint64_t since) noexcept nogil:
    """A wait has ended, `since` ns after the one before, with nothing or with something: arm or disarm."""
    if reactor.armed:
        reactor.brisk_turns = reactor.brisk_turns + 1 if since < <uint64_t> LEISURE else 0
        if reactor.brisk_turns >= BRISK:
            leisure_arm(reactor, False)
    else:
        reactor.quiet_waits = reactor.quiet_waits + 1 if nothing else 0
        if reactor.quiet_waits >= QUIET:
            leisure_arm(reactor, True)
