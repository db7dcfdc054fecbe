"""The writer: a thread that writes events as lines of JSON to a descriptor, for as long as somebody reads there.

It encodes up to WRITER_BYTES of whole lines, a quantum of each feed in turn, and writes them; what the kernel does
not take stays, and is offered again once poll() says so. The descriptor is often shared with other processes, so
O_NONBLOCK, which belongs to all of them, is never set. Instead, by what the descriptor is:

- pipe: pwritev2 with RWF_NOWAIT (Linux 6.4), as much as fits. Where the kernel does not know that, writes of at most
  PIPE_BUF after poll(), which then do not block either, unless somebody else fills the pipe in between.
- socket: send with MSG_DONTWAIT.
- terminal: small writes after poll().
- file, and anything else: whole writes. A disk that hangs makes them hang.

Where standard error is the same pipe or socket, each write has whole lines of at most PIPE_BUF together, which the
kernel takes at once or not at all: or else log lines would stand in the middle of events. A longer line is not safe.

Errors that may pass (a full disk, for one) are counted, and the same bytes are offered again every second: a line that
was cut there is whole once it heals. If the end comes first, the part of it is taken back from a regular file, if
nobody has written behind it. Any other error ends the writer.

A write that hangs leaves its thread behind at `stop`: the thread is out of the engine before it writes, and does not
enter again. One lock guards what both sides see; a journal's lock may be taken while it is held, never the other way.
"""

from libc.stddef cimport size_t
from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t
from libc.string cimport memset

from relay.native.journal cimport Journal, journal_lock, journal_unlock, place_at_start, place_settle
from relay.native.json cimport Json, JsonBuffer, json_buffer_free, json_buffer_init, json_free, json_init
from relay.native.json_batch cimport JsonBatch, json_batch
from relay.native.mailbox cimport eventfd_clear, eventfd_raise
from relay.native.memory cimport Memory, memory_init, relay_counter_read, relay_counter_write
from relay.native.model cimport FEEDS, Feed, Reactor, Reader
from relay.native.posix cimport (
    EINTR, EPIPE, MSG_DONTWAIT, MSG_NOSIGNAL, close, errno, iovec, monotonic, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock, send, write,
)
from relay.native.status cimport STATUS_NO_MEMORY, STATUS_OK

cdef extern from *:
    """
    #include <errno.h>
    #include <limits.h>
    #include <poll.h>
    #include <signal.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <sys/uio.h>
    #include <unistd.h>

    #define WRITER_FILE 0
    #define WRITER_PIPE 1
    #define WRITER_SOCKET 2
    #define WRITER_TERMINAL 3

    static inline int relay_writer_kind(int fd) {
        struct stat about;
        if (fstat(fd, &about) != 0) return WRITER_FILE;
        if (S_ISFIFO(about.st_mode)) return WRITER_PIPE;
        if (S_ISSOCK(about.st_mode)) return WRITER_SOCKET;
        return S_ISCHR(about.st_mode) && isatty(fd) ? WRITER_TERMINAL : WRITER_FILE;
    }

    /* Whether standard error goes into the same pipe or socket. */
    static inline int relay_writer_shared(int fd) {
        struct stat about, other;
        return fstat(fd, &about) == 0 && (S_ISFIFO(about.st_mode) || S_ISSOCK(about.st_mode))
            && fstat(STDERR_FILENO, &other) == 0 && about.st_dev == other.st_dev && about.st_ino == other.st_ino;
    }

    /* A write to a closed pipe is an error here, not a signal, whatever the process makes of it. */
    static inline void relay_writer_no_sigpipe(void) {
        sigset_t pipe_only;
        sigemptyset(&pipe_only);
        sigaddset(&pipe_only, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe_only, NULL);
    }

    /* What of `events` (or of errors and hang-ups) the descriptor has, or else 0; `woken` when `wake` was raised. */
    static inline int relay_writer_poll(int fd, int events, int wake, int milliseconds, int *woken) {
        struct pollfd both[2] = {{wake, POLLIN, 0}, {fd, (short)events, 0}};
        *woken = 0;
        if (poll(both, 2, milliseconds) <= 0) return 0;
        *woken = both[0].revents != 0;
        return both[1].revents;
    }

    #ifndef RWF_NOWAIT
    #define RWF_NOWAIT 8
    #endif
    static inline int relay_writer_again(int code) { return code == EAGAIN || code == EWOULDBLOCK; }
    /* A full disk, quota or file, memory; of a file also a device or server that fails for a while. */
    static inline int relay_writer_passing(int kind, int code) {
        return code == ENOSPC || code == EDQUOT || code == EFBIG || code == ENOMEM || code == ENOBUFS
            || (code == EIO && kind == WRITER_FILE);
    }
    static inline int relay_writer_unknown(int code) {
        return code == EOPNOTSUPP || code == ENOSYS || code == EINVAL || code == EPERM;
    }

    /* Take back the last bytes of a regular file, unless somebody else has written behind them; whether it could. */
    static inline int relay_writer_take_back(int fd, size_t size) {
        struct stat about;
        const off_t at = lseek(fd, 0, SEEK_CUR);
        if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode) || about.st_size != at || at < (off_t)size) return 0;
        if (ftruncate(fd, at - (off_t)size) != 0) return 0;
        /* Who shares the descriptor goes on there. */
        lseek(fd, at - (off_t)size, SEEK_SET);
        return 1;
    }

    /* How many of the bytes at the end belong to a line that is not whole. */
    static inline size_t relay_writer_cut(const uint8_t *data, size_t size) {
        size_t cut = 0;
        while (cut < size && data[size - cut - 1] != '\\n') cut++;
        return cut;
    }

    static inline size_t relay_writer_lines(const uint8_t *data, size_t size) {
        size_t lines = 0;
        const uint8_t *end = data + size, *at = data;
        while (at < end && (at = (const uint8_t *)memchr(at, '\\n', (size_t)(end - at))) != NULL) {
            lines++;
            at++;
        }
        return lines;
    }
    """
    enum:
        PIPE_BUF
        POLLOUT
        POLLERR
        POLLHUP
        POLLNVAL
        RWF_NOWAIT
        WRITER_FILE
        WRITER_PIPE
        WRITER_SOCKET
        WRITER_TERMINAL
    int relay_writer_kind(int fd) noexcept nogil
    bint relay_writer_shared(int fd) noexcept nogil
    void relay_writer_no_sigpipe() noexcept nogil
    int relay_writer_poll(int fd, int events, int wake, int milliseconds, int *woken) noexcept nogil
    bint relay_writer_again(int code) noexcept nogil
    bint relay_writer_passing(int kind, int code) noexcept nogil
    bint relay_writer_unknown(int code) noexcept nogil
    bint relay_writer_take_back(int fd, size_t size) noexcept nogil
    size_t relay_writer_cut(const uint8_t *data, size_t size) noexcept nogil
    size_t relay_writer_lines(const uint8_t *data, size_t size) noexcept nogil
    ssize_t pwritev2(int fd, const iovec *pieces, int count, long long offset, int flags) noexcept nogil

cdef enum:
    WRITER_BYTES = 262144      # encoded before they are written
    WRITER_QUANTUM = 65536     # of one feed, before it is the next one's turn
    WRITER_TERMINAL_BYTES = 256
    WRITER_RUNS = 64           # stretches of one feed in the buffer
    WRITER_GATHER = 2          # ms that the first event after a rest waits for others: a wake-up costs more
    WRITER_LOOK = 1000         # ms after which a writer that cannot write looks what it has lost, and tries again
    WRITER_GRACE = 100         # ms behind the deadline in which a system call that does not hang returns
    WRITER_KEPT = 1048576      # bytes of the buffer that are kept, after an event that needed more


# Lines of one feed that lie together in the buffer.
cdef struct WriterRun:
    int feed
    size_t end

cdef struct WriterFeed:
    bint chosen
    bint attached
    Reader reader
    uint64_t stop_at           # once stopping
    uint64_t next              # the feed's, when it was last looked at
    uint64_t written

# What writer_count tells; the first four by feed.
cdef struct WriterCount:
    uint64_t next[FEEDS]       # the feed's
    uint64_t passed[FEEDS]
    uint64_t lost[FEEDS]
    uint64_t written[FEEDS]
    uint64_t bytes
    uint64_t writes
    uint64_t failed
    bint writing
    int failing
    int error

cdef struct WriterState:
    pthread_mutex_t lock
    Reactor *reactor
    Memory memory
    WriterFeed feeds[FEEDS]
    Json json
    JsonBuffer out
    size_t sent                # of the buffer
    WriterRun runs[WRITER_RUNS]
    int run                    # the first not wholly sent
    int run_count
    int turn                   # the feed whose turn is next
    int fd
    int kind
    bint shared                # with standard error
    bint nowait                # the kernel knows RWF_NOWAIT here
    int wake                   # eventfd: events, or a stop
    int over                   # eventfd: the thread has ended
    bint stopping
    uint64_t deadline
    bint writing               # in a system call that may hang
    bint abandoned             # left behind in it
    bint ended                 # out of the engine
    int failing                # the errno of the last write, if it may pass
    uint64_t failed            # writes that failed so
    int error                  # that ended it
    uint64_t bytes
    uint64_t writes


cdef inline int writer_init(WriterState *writer, Reactor *reactor, int fd, int feeds) noexcept nogil:
    """`writer` is zeroed, with its three descriptors set."""
    cdef int feed
    if pthread_mutex_init(&writer.lock, NULL) != 0:
        return STATUS_NO_MEMORY
    writer.reactor = reactor
    writer.fd = fd
    writer.kind = relay_writer_kind(fd)
    writer.shared = relay_writer_shared(fd)
    writer.nowait = True
    writer.deadline = UINT64_MAX
    memory_init(&writer.memory)
    json_init(&writer.json, &writer.memory)
    json_buffer_init(&writer.out, &writer.memory)
    for feed in range(FEEDS):
        writer.feeds[feed].chosen = feeds >> feed & 1
        writer.feeds[feed].stop_at = UINT64_MAX
        place_at_start(&writer.feeds[feed].reader.place)
    return STATUS_OK


cdef inline void writer_free(WriterState *writer) noexcept nogil:
    """Once its thread has ended, or was never started."""
    json_free(&writer.json)
    json_buffer_free(&writer.out)
    pthread_mutex_destroy(&writer.lock)


cdef inline void writer_attach(WriterState *writer) noexcept nogil:
    """Read from the first event there ever was."""
    cdef Feed *feed
    cdef Reader *reader
    cdef int number
    for number in range(FEEDS):
        if not writer.feeds[number].chosen:
            continue
        feed = &writer.reactor.feeds[number]
        reader = &writer.feeds[number].reader
        reader.feed = number
        reader.wake = writer.wake
        journal_lock(&feed.journal)
        reader.previous = NULL
        reader.next = feed.sinks
        if feed.sinks != NULL:
            feed.sinks.previous = reader
        feed.sinks = reader
        journal_unlock(&feed.journal)
        writer.feeds[number].attached = True


cdef inline void _writer_end(WriterState *writer) noexcept nogil:
    """Leave the engine, for good. Under the lock."""
    cdef Feed *feed
    cdef Reader *reader
    cdef int number
    for number in range(FEEDS):
        if not writer.feeds[number].attached:
            continue
        writer.feeds[number].attached = False
        feed = &writer.reactor.feeds[number]
        reader = &writer.feeds[number].reader
        journal_lock(&feed.journal)
        place_settle(&feed.journal, &reader.place)
        writer.feeds[number].next = feed.journal.next
        if reader.previous != NULL:
            reader.previous.next = reader.next
        else:
            feed.sinks = reader.next
        if reader.next != NULL:
            reader.next.previous = reader.previous
        journal_unlock(&feed.journal)
    writer.ended = True


# The thread ---------------------------------------------------------------------------------------

cdef inline bint _writer_fill(WriterState *writer) noexcept nogil:
    """Encode what there is, each feed a quantum in turn. Whether there are lines to write."""
    cdef JsonBatch batch
    cdef Feed *feed
    cdef int idle = 0
    cdef int number
    if writer.out.room > WRITER_KEPT:
        json_buffer_free(&writer.out)
    writer.out.used = 0
    writer.sent = 0
    writer.run = 0
    writer.run_count = 0
    while writer.out.used < WRITER_BYTES and writer.run_count < WRITER_RUNS and idle < FEEDS:
        number = writer.turn
        writer.turn = (writer.turn + 1) % FEEDS
        idle += 1
        if not writer.feeds[number].chosen:
            continue
        feed = &writer.reactor.feeds[number]
        batch.most_bytes = writer.out.used + WRITER_QUANTUM
        batch.most_events = UINT64_MAX
        batch.stop_at = relay_counter_read(&writer.feeds[number].stop_at)
        batch.action = NULL
        batch.action_size = 0
        json_batch(&feed.journal, number, &writer.feeds[number].reader.place, &writer.json, &writer.out, &batch)
        if batch.events > 0:
            writer.runs[writer.run_count].feed = number
            writer.runs[writer.run_count].end = writer.out.used
            writer.run_count += 1
            idle = 0
    return writer.out.used > 0


cdef inline void _writer_settle(WriterState *writer, size_t sent) noexcept nogil:
    """The kernel has accepted so many bytes more. Under the lock."""
    cdef WriterRun *run
    cdef size_t size
    writer.bytes += sent
    writer.writes += 1
    while sent:
        run = &writer.runs[writer.run]
        size = run.end - writer.sent
        if size > sent:
            size = sent
        writer.feeds[run.feed].written += relay_writer_lines(writer.out.data + writer.sent, size)
        writer.sent += size
        sent -= size
        if writer.sent == run.end:
            writer.run += 1


cdef inline ssize_t _writer_write(WriterState *writer, const uint8_t *data, size_t size) noexcept nogil:
    """One write that does not wait, so far as the kernel lets it: what write(2) answers."""
    cdef iovec piece
    cdef ssize_t done
    cdef size_t cut
    if writer.shared and size > PIPE_BUF:
        cut = relay_writer_cut(data, PIPE_BUF)
        size = PIPE_BUF - cut if cut < PIPE_BUF else PIPE_BUF
    if writer.kind == WRITER_SOCKET:
        return send(writer.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if writer.kind == WRITER_PIPE and writer.nowait:
        piece.iov_base = <void *> data
        piece.iov_len = size
        done = pwritev2(writer.fd, &piece, 1, -1, RWF_NOWAIT)
        if done >= 0 or not relay_writer_unknown(errno):
            return done
        writer.nowait = False
    if writer.kind == WRITER_PIPE and size > PIPE_BUF:
        size = PIPE_BUF
    if writer.kind == WRITER_TERMINAL and size > WRITER_TERMINAL_BYTES:
        size = WRITER_TERMINAL_BYTES
    return write(writer.fd, data, size)


cdef inline int _writer_timeout(const WriterState *writer, int most) noexcept nogil:
    """Milliseconds to wait for something, until the deadline at the latest; -1 is for ever."""
    cdef uint64_t now
    cdef uint64_t left
    cdef uint64_t deadline = relay_counter_read(&writer.deadline)
    if deadline == UINT64_MAX:
        return most
    now = monotonic()
    if now >= deadline:
        return 0
    left = (deadline - now) // 1000000 + 1
    return <int> left if most < 0 or left < <uint64_t> most else most


cdef inline void _writer_look(WriterState *writer) noexcept nogil:
    """Count what was overwritten while nothing could be written."""
    cdef Journal *journal
    cdef int number
    for number in range(FEEDS):
        if writer.feeds[number].chosen:
            journal = &writer.reactor.feeds[number].journal
            journal_lock(journal)
            place_settle(journal, &writer.feeds[number].reader.place)
            journal_unlock(journal)


cdef inline void _writer_wait_writable(WriterState *writer, bint failing) noexcept nogil:
    """Wait until it takes more, as poll() has it; one that is failing is not asked."""
    cdef int fd = -1 if failing else writer.fd
    cdef int woken
    if relay_writer_poll(fd, POLLOUT, writer.wake, _writer_timeout(writer, WRITER_LOOK), &woken) == 0:
        _writer_look(writer)
    if woken:
        eventfd_clear(writer.wake)


cdef inline bint _writer_rest(WriterState *writer) noexcept nogil:
    """Nothing to write: wait for events or a stop. False when nobody reads the other end any more."""
    cdef Journal *journal
    cdef int woken, said, number
    cdef bint rest = True
    # What is no end of something says nothing there, or always the same.
    cdef int fd = -1 if writer.kind == WRITER_FILE else writer.fd
    for number in range(FEEDS):
        if not writer.feeds[number].chosen:
            continue
        journal = &writer.reactor.feeds[number].journal
        journal_lock(journal)
        # An append since the last look must not be missed.
        if writer.feeds[number].reader.place.sequence == journal.next:
            writer.feeds[number].reader.waiting = True
        else:
            rest = False
        journal_unlock(journal)
    if not rest:
        # There is one, but no memory to encode it: try again a little later.
        said = relay_writer_poll(-1, 0, writer.wake, _writer_timeout(writer, WRITER_GATHER), &woken)
    else:
        said = relay_writer_poll(fd, 0, writer.wake, _writer_timeout(writer, -1), &woken)
        if said == 0 and woken:
            eventfd_clear(writer.wake)
            relay_writer_poll(-1, 0, writer.wake, _writer_timeout(writer, WRITER_GATHER), &woken)
    if woken:
        eventfd_clear(writer.wake)
    return not said & (POLLERR | POLLHUP | POLLNVAL)


cdef inline bint _writer_push(WriterState *writer) noexcept nogil:
    """Offer the kernel what is left of the buffer, once. False when the thread is to end at once, its lock held."""
    cdef ssize_t done
    cdef int code
    cdef int woken
    cdef bint failing
    if (writer.kind == WRITER_PIPE and not writer.nowait) or writer.kind == WRITER_TERMINAL:
        if relay_writer_poll(writer.fd, POLLOUT, writer.wake, 0, &woken) == 0:
            _writer_wait_writable(writer, False)
            return True
    pthread_mutex_lock(&writer.lock)
    if writer.abandoned:
        return False
    writer.writing = True
    pthread_mutex_unlock(&writer.lock)
    done = _writer_write(writer, writer.out.data + writer.sent, writer.out.used - writer.sent)
    code = errno
    pthread_mutex_lock(&writer.lock)
    writer.writing = False
    if writer.abandoned:
        return False
    if done >= 0:
        _writer_settle(writer, <size_t> done)
        writer.failing = 0
    elif relay_writer_passing(writer.kind, code):
        writer.failing = code
        writer.failed += 1
    elif relay_writer_again(code):
        writer.failing = 0
    elif code != EINTR:
        writer.error = code
        return False
    failing = writer.failing != 0
    pthread_mutex_unlock(&writer.lock)
    if done < 0 and code != EINTR:
        _writer_wait_writable(writer, failing)
    return True


cdef inline bint _writer_due(WriterState *writer) noexcept nogil:
    """Whether the time to end has come, at the latest. With the lock held when it has."""
    pthread_mutex_lock(&writer.lock)
    if writer.stopping and (writer.deadline == 0 or monotonic() >= writer.deadline):
        return True
    pthread_mutex_unlock(&writer.lock)
    return False


cdef inline bint _writer_done(WriterState *writer) noexcept nogil:
    """Nothing is left to encode: whether that is the end. With the lock held when it is."""
    cdef int number
    pthread_mutex_lock(&writer.lock)
    if writer.stopping:
        for number in range(FEEDS):
            if writer.feeds[number].chosen and \
                    writer.feeds[number].reader.place.sequence < writer.feeds[number].stop_at:
                break
        else:
            return True
    pthread_mutex_unlock(&writer.lock)
    return False


cdef inline void writer_run(WriterState *writer) noexcept nogil:
    """The thread's whole life."""
    cdef size_t cut
    cdef int fd
    cdef bint left_behind
    relay_writer_no_sigpipe()
    while True:
        if _writer_due(writer):
            break
        if writer.sent == writer.out.used and not _writer_fill(writer):
            if _writer_done(writer):
                break
            if not _writer_rest(writer):
                pthread_mutex_lock(&writer.lock)
                writer.error = EPIPE
                break
            continue
        if not _writer_push(writer):
            break
    # The lock is held.
    left_behind = writer.abandoned
    if not left_behind:
        _writer_end(writer)
    fd = writer.fd
    writer.fd = -1
    pthread_mutex_unlock(&writer.lock)
    # What follows may hang as well.
    cut = relay_writer_cut(writer.out.data, writer.sent)
    if cut and not left_behind and relay_writer_take_back(fd, cut):
        pthread_mutex_lock(&writer.lock)
        writer.bytes -= cut
        pthread_mutex_unlock(&writer.lock)
    # Now, and not when the last reference goes: who reads the other end waits for that.
    close(fd)
    eventfd_raise(writer.over)


cdef inline void writer_never(WriterState *writer) noexcept nogil:
    """There is no thread for it after all."""
    pthread_mutex_lock(&writer.lock)
    _writer_end(writer)
    pthread_mutex_unlock(&writer.lock)
    eventfd_raise(writer.over)


# The other side -----------------------------------------------------------------------------------

cdef inline void writer_stop(WriterState *writer, uint64_t deadline) noexcept nogil:
    """Begin the end, or bring it nearer."""
    cdef int number
    pthread_mutex_lock(&writer.lock)
    if not writer.ended:
        for number in range(FEEDS):
            if writer.feeds[number].chosen and not writer.stopping:
                journal_lock(&writer.reactor.feeds[number].journal)
                relay_counter_write(&writer.feeds[number].stop_at, writer.reactor.feeds[number].journal.next)
                journal_unlock(&writer.reactor.feeds[number].journal)
        if not writer.stopping or deadline < writer.deadline:
            relay_counter_write(&writer.deadline, deadline)
        writer.stopping = True
    pthread_mutex_unlock(&writer.lock)
    eventfd_raise(writer.wake)


cdef inline bint writer_wait(WriterState *writer, uint64_t deadline) noexcept nogil:
    """Wait until the thread has ended; behind the deadline leave it where it hangs. Whether it ended."""
    cdef uint64_t now
    cdef int woken
    cdef bint ended, late
    while True:
        now = monotonic()
        late = now >= deadline
        relay_writer_poll(
            -1, 0, writer.over, WRITER_GRACE if late else <int> ((deadline - now) // 1000000 + 1), &woken)
        if woken:
            return True
        if not late:
            continue
        pthread_mutex_lock(&writer.lock)
        if writer.writing and not writer.abandoned:
            writer.abandoned = True
            _writer_end(writer)
        ended = writer.ended
        pthread_mutex_unlock(&writer.lock)
        if ended:
            return False


cdef inline bint writer_ended(WriterState *writer) noexcept nogil:
    """Whether the thread has left the engine."""
    cdef bint ended
    pthread_mutex_lock(&writer.lock)
    ended = writer.ended
    pthread_mutex_unlock(&writer.lock)
    return ended


cdef inline uint64_t writer_unwritten(WriterState *writer) noexcept nogil:
    """Events that were held when it stopped, and were neither written nor lost."""
    cdef WriterFeed *feed
    cdef uint64_t total = 0
    cdef uint64_t until
    cdef int number
    pthread_mutex_lock(&writer.lock)
    for number in range(FEEDS):
        feed = &writer.feeds[number]
        # After an error they are lost.
        if feed.chosen and not writer.error:
            until = feed.stop_at if feed.stop_at < feed.next else feed.next
            if until > feed.written + feed.reader.place.lost:
                total += until - feed.written - feed.reader.place.lost
    pthread_mutex_unlock(&writer.lock)
    return total


cdef inline void writer_count(WriterState *writer, bint engine_lives, WriterCount *count) noexcept nogil:
    """One snapshot. Of a writer that was stopped it is that of its end."""
    cdef WriterFeed *feed
    cdef Journal *journal
    cdef int number
    pthread_mutex_lock(&writer.lock)
    for number in range(FEEDS):
        feed = &writer.feeds[number]
        journal = &writer.reactor.feeds[number].journal if engine_lives else NULL
        if journal != NULL:
            journal_lock(journal)
            if not writer.ended or writer.error:
                feed.next = journal.next
        count.passed[number] = feed.reader.place.sequence
        count.lost[number] = feed.reader.place.lost
        if journal != NULL:
            journal_unlock(journal)
        count.next[number] = feed.next
        count.written[number] = feed.written
    count.bytes = writer.bytes
    count.writes = writer.writes
    count.failed = writer.failed
    count.writing = writer.writing
    count.failing = writer.failing
    count.error = writer.error
    pthread_mutex_unlock(&writer.lock)
