/* Plays one rank's part of an exchange.
 *
 * A program is a plan of commbench/cutting.py as tables of 64-bit words, made by compiled.py. It
 * speaks by the tokens of mailbox.py with ranks that are near, whose buffers it maps, and by MPI's
 * persistent requests with those that are far; a rank which plays its part in Python instead is no
 * different to them. Nothing here blocks: where a message does not come, the call returns after so
 * many yields of the core, and the next one goes on from there.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "elements.h"

/* Of mailbox.py: a slot is a token's number, its four words, and the number of who took it. */
enum { SLOTS = 16, WORDS = 8, TAKEN = 5 };
/* Of shared_memory.py: what a token is for, and the buffer of one whose elements are not here. */
enum { PLAIN, LENT, ANSWERED };
enum { PRIVATE = -1 };

enum { SEND, AWAIT, COPY, ADD, TOTAL, POST, FETCH };
enum { UNSENT, HELD_BACK, SENT, TAKEN_AWAY };
enum { ENDED = -1, NOT_HERE = -2, MPI_FAILED = -3 };
/* Messages to one peer that MPI has at once; of mpi.py. */
enum { MOST_UNDER_WAY = 8 };
enum { BLOCKED, PASSED, FAULTY };

/* Offsets are in bytes, from the start of the rank's own shared buffer. */
typedef struct {
    int64_t kind;
    int64_t peer;   /* COPY, ADD: the source */
    int64_t offset; /* COPY, ADD, TOTAL: of the elements to be overwritten or added to */
    int64_t nbytes;
    int64_t first; /* SEND, AWAIT: the message; TOTAL: its first term; FETCH, POST: the receive */
    int64_t terms; /* TOTAL: how many */
} step_t;

typedef struct {
    int64_t peer;
    int64_t token[4];  /* buffer, offset, bytes, what for */
    int64_t purpose;   /* what for, unless it turns out to be answered in place */
    int64_t copied;    /* offset of the elements that must be copied there first, or -1 */
    int64_t rounded;   /* whether they must be rounded first */
    int64_t following; /* the next message to the same peer, or -1 */
    void *request;     /* to a peer that is far */
    int64_t number;
    int64_t state;
} message_t;

typedef struct {
    int64_t peer;
    int64_t answer; /* the message that brings it the sum, or -1 */
} term_t;

/* A message from a peer that is far. */
typedef struct {
    void *request;
    const char *term;     /* what is to be added, once it is here; NULL: it comes where it belongs */
    int64_t follows;      /* whether an earlier receive of the round must be through before */
    int64_t first_reader; /* of the messages that must have left before it may come there */
    int64_t readers;
} receive_t;

typedef struct {
    _Atomic int64_t *out, *in;   /* the slots of the two lanes; NULL if it is far */
    int64_t *last_out, *last_in; /* numbers of the last tokens */
    int64_t held_back;           /* the first message that could not be handed over, or -1 */
    int64_t oldest, under_way;   /* of those that MPI has */
} peer_t;

typedef struct {
    step_t *steps;
    int64_t step_count;
    message_t *messages;
    int64_t message_count;
    term_t *terms;
    receive_t *receives;
    int64_t *readers;
    peer_t *peers;
    int64_t peer_count;
    char **buffers; /* of each shared buffer, every peer's part */
    char *own;
    int64_t element;
    char *sums; /* of 16-bit elements: where they are added, as if `own` were twice as long */
    int64_t offset, nbytes; /* of the array in `own` */
    int64_t pauses; /* before the core is given away for the first time */
    int (*start)(void *request);
    int (*test)(void *request, int *flag, void *status);
    void *status;
    int64_t at, term; /* the step that is next, and how many of its terms have been added */
    int64_t posted, fetched; /* how many receives */
    int64_t peers_held_back;
    int64_t missed; /* the peer that a step which could not be done waits for */
    int64_t error;  /* of MPI */
} program_t;

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Where elements are added. */
static char *sum_at(const program_t *p, int64_t offset)
{
    return p->sums ? p->sums + 2 * offset : p->own + offset;
}

static void widen_own(const program_t *p, int64_t offset, int64_t nbytes)
{
    if (p->sums)
        widen(p->element, sum_at(p, offset), p->own + offset, nbytes);
}

static void round_own(const program_t *p, int64_t offset, int64_t nbytes)
{
    if (p->sums)
        round_to(p->element, p->own + offset, sum_at(p, offset), nbytes);
}

/* The next token from a peer, or NULL if it has not come. */
static _Atomic int64_t *next_token(const program_t *p, int64_t peer)
{
    int64_t number = *p->peers[peer].last_in + 1;
    _Atomic int64_t *slot = p->peers[peer].in + number % SLOTS * WORDS;
    return atomic_load_explicit(slot, memory_order_acquire) == number ? slot : NULL;
}

static char *elements(const program_t *p, int64_t peer, const _Atomic int64_t *token)
{
    return token[1] == PRIVATE ? NULL : p->buffers[token[1] * p->peer_count + peer] + token[2];
}

static void take(const program_t *p, int64_t peer, _Atomic int64_t *token)
{
    int64_t number = ++*p->peers[peer].last_in;
    atomic_store_explicit(token + TAKEN, number, memory_order_release);
}

static int has_ended(program_t *p, void *request)
{
    int flag = 0, error = p->test(request, &flag, p->status);
    if (error)
        p->error = error;
    return flag;
}

static void start(program_t *p, void *request)
{
    int error = p->start(request);
    if (error)
        p->error = error;
}

/* Count the messages to a peer that MPI is through with. */
static void count_ended(program_t *p, peer_t *peer)
{
    while (peer->under_way) {
        message_t *oldest = p->messages + peer->oldest;
        if (oldest->state != TAKEN_AWAY && !has_ended(p, oldest->request))
            break;
        oldest->state = TAKEN_AWAY;
        peer->oldest = oldest->following;
        peer->under_way--;
    }
}

static int start_message(program_t *p, int64_t index)
{
    message_t *m = p->messages + index;
    peer_t *peer = p->peers + m->peer;
    /* Not before it matters: asked, MPI may start to copy what has arrived, while peers still wait
     * to hear of what is to be sent. */
    if (peer->under_way == MOST_UNDER_WAY)
        count_ended(p, peer);
    if (peer->under_way == MOST_UNDER_WAY)
        return 0;
    start(p, m->request);
    m->state = SENT;
    if (!peer->under_way++)
        peer->oldest = index;
    return 1;
}

static int write_token(message_t *m, const peer_t *peer)
{
    _Atomic int64_t *slot = peer->out + m->number % SLOTS * WORDS;
    if (atomic_load_explicit(slot + TAKEN, memory_order_acquire) < m->number - SLOTS)
        return 0;
    for (int i = 0; i < 4; i++)
        atomic_store_explicit(slot + 1 + i, m->token[i], memory_order_relaxed);
    atomic_store_explicit(slot, m->number, memory_order_release);
    m->state = SENT;
    return 1;
}

/* Whether a message could leave. */
static int hand_over(program_t *p, int64_t index)
{
    message_t *m = p->messages + index;
    return m->request ? start_message(p, index) : write_token(m, p->peers + m->peer);
}

static void send(program_t *p, int64_t index)
{
    message_t *m = p->messages + index;
    peer_t *peer = p->peers + m->peer;
    if (m->rounded)
        round_own(p, m->copied < 0 ? m->token[1] : m->copied, m->token[2]);
    if (m->copied >= 0) {
        /* Ranks that swap must both add what was sent, rounded, or they end with other bits. */
        widen_own(p, m->copied, m->token[2]);
        copy(p->own + m->token[1], p->own + m->copied, m->token[2]);
    }
    if (!m->request)
        m->number = ++*peer->last_out;
    if (peer->held_back < 0 && hand_over(p, index))
        return;
    m->state = HELD_BACK;
    if (peer->held_back < 0) {
        peer->held_back = index;
        p->peers_held_back++;
    }
}

/* Send what was held back: others may wait for it. */
static void send_held_back(program_t *p)
{
    for (int64_t i = 0; p->peers_held_back && i < p->peer_count; i++) {
        int64_t index = p->peers[i].held_back;
        if (index < 0)
            continue;
        while (index >= 0 && p->messages[index].state == HELD_BACK) {
            if (!hand_over(p, index))
                break;
            index = p->messages[index].following;
        }
        if (index >= 0 && p->messages[index].state != HELD_BACK)
            index = -1;
        p->peers[i].held_back = index;
        if (index < 0)
            p->peers_held_back--;
    }
}

/* What others may wait for, while this rank waits for somebody: MPI moves messages only while it is
 * asked about one, whichever. */
static void keep_going(program_t *p)
{
    send_held_back(p);
    if (p->steps[p->at].kind == FETCH)
        return;
    if (p->fetched < p->posted) {
        has_ended(p, p->receives[p->fetched].request);
        return;
    }
    for (int64_t i = 0; i < p->peer_count; i++)
        if (p->peers[i].under_way) {
            count_ended(p, p->peers + i);
            return;
        }
}

static int is_taken(program_t *p, message_t *m)
{
    p->missed = m->peer;
    if (m->state == SENT && m->request) {
        if (has_ended(p, m->request))
            m->state = TAKEN_AWAY;
    } else if (m->state == SENT) {
        _Atomic int64_t *slot = p->peers[m->peer].out + m->number % SLOTS * WORDS;
        /* Nobody reads what has been written into the receiver's own memory. */
        if (m->token[3] == ANSWERED
            || atomic_load_explicit(slot + TAKEN, memory_order_acquire) >= m->number)
            m->state = TAKEN_AWAY;
    }
    return m->state == TAKEN_AWAY;
}

static int receive(program_t *p, const step_t *s)
{
    _Atomic int64_t *token = next_token(p, s->peer);
    if (!token) {
        p->missed = s->peer;
        return BLOCKED;
    }
    char *there = elements(p, s->peer, token);
    if (!there)
        return FAULTY;
    if (s->kind == ADD) {
        add(p->element, sum_at(p, s->offset), there, s->nbytes);
    } else {
        if (token[4] != ANSWERED)
            copy(p->own + s->offset, there, s->nbytes);
        widen_own(p, s->offset, s->nbytes);
    }
    take(p, s->peer, token);
    return PASSED;
}

/* Add all terms a block at a time, and write the sum back while it is in the cache. Terms come from
 * other cores' caches, one after the other: a block ahead, they come while others are added. */
static void sum_in_place(program_t *p, const step_t *s)
{
    enum { BLOCK = 1 << 11 };
    char *there[s->terms];
    const term_t *terms = p->terms + s->first;
    for (int64_t i = 0; i < s->terms; i++)
        there[i] = elements(p, terms[i].peer, next_token(p, terms[i].peer));
    for (int64_t first = 0; first < s->nbytes; first += BLOCK) {
        int64_t nbytes = s->nbytes - first < BLOCK ? s->nbytes - first : BLOCK;
        char *own = p->own + s->offset + first, *sum = sum_at(p, s->offset + first);
        for (int64_t i = 0; i < s->terms; i++) {
            add(p->element, sum, there[i] + first, nbytes);
            prefetch(there[i] + first + BLOCK, BLOCK);
        }
        round_own(p, s->offset + first, nbytes);
        for (int64_t i = 0; i < s->terms; i++)
            if (terms[i].answer >= 0)
                memcpy(there[i] + first, own, nbytes);
    }
    for (int64_t i = 0; i < s->terms; i++) {
        if (terms[i].answer >= 0)
            p->messages[terms[i].answer].token[3] = ANSWERED;
        take(p, terms[i].peer, next_token(p, terms[i].peer));
    }
}

static int total(program_t *p, const step_t *s)
{
    const term_t *terms = p->terms + s->first;
    int all_lent = !p->term;
    for (int64_t i = 0; all_lent && i < s->terms; i++) {
        _Atomic int64_t *token = next_token(p, terms[i].peer);
        if (!token) {
            p->missed = terms[i].peer;
            return BLOCKED;
        }
        all_lent = token[4] == LENT;
    }
    if (all_lent) {
        sum_in_place(p, s);
        return PASSED;
    }
    /* Somebody may be waiting to go on with what it did not lend. */
    for (; p->term < s->terms; p->term++) {
        step_t one = {ADD, terms[p->term].peer, s->offset, s->nbytes, 0, 0};
        int result = receive(p, &one);
        if (result != PASSED)
            return result;
    }
    p->term = 0;
    return PASSED;
}

/* Start receives in their order, up to one, as far as they may come already. */
static void post(program_t *p, int64_t last, int needed)
{
    for (; p->posted <= last; p->posted++) {
        const receive_t *r = p->receives + p->posted;
        if (!r->term && r->follows && !needed)
            return;
        for (int64_t i = 0; !r->term && i < r->readers; i++)
            if (!is_taken(p, p->messages + p->readers[r->first_reader + i]))
                return;
        start(p, r->request);
    }
}

static int fetch(program_t *p, const step_t *s)
{
    post(p, s->first, 1);
    if (p->posted <= s->first)
        return BLOCKED;
    const receive_t *r = p->receives + s->first;
    if (!has_ended(p, r->request)) {
        p->missed = s->peer;
        return BLOCKED;
    }
    if (r->term)
        add(p->element, sum_at(p, s->offset), r->term, s->nbytes);
    else
        widen_own(p, s->offset, s->nbytes);
    p->fetched = s->first + 1;
    return PASSED;
}

static int try_step(program_t *p)
{
    const step_t *s = p->steps + p->at;
    switch (s->kind) {
    case SEND:
        send(p, s->first);
        return PASSED;
    case AWAIT:
        return is_taken(p, p->messages + s->first) ? PASSED : BLOCKED;
    case TOTAL:
        return total(p, s);
    case POST:
        post(p, s->first, 0);
        return PASSED;
    case FETCH:
        return fetch(p, s);
    default:
        return receive(p, s);
    }
}

/* Begin a run. */
void commbench_rewind(program_t *p)
{
    p->at = p->term = p->posted = p->fetched = p->error = 0;
    for (int64_t i = 0; i < p->peer_count; i++)
        p->peers[i].under_way = 0;
    for (int64_t i = 0; i < p->message_count; i++) {
        p->messages[i].state = UNSENT;
        p->messages[i].token[3] = p->messages[i].purpose;
    }
    widen_own(p, p->offset, p->nbytes);
}

/* Go on with a run. Returns ENDED, or the step at which a message was still missing after `yields`
 * yields; NOT_HERE if the elements of one are not in shared memory, MPI_FAILED if MPI says so. */
int64_t commbench_play(program_t *p, int64_t yields)
{
    for (; p->at < p->step_count; p->at++) {
        int result = try_step(p);
        for (int64_t tries = 0; result == BLOCKED; tries++) {
            keep_going(p);
            if (p->error)
                break;
            if (tries < p->pauses)
                pause_briefly();
            else if (tries - p->pauses < yields)
                sched_yield();
            else
                return p->at;
            result = try_step(p);
        }
        if (p->error)
            return MPI_FAILED;
        if (result == FAULTY)
            return NOT_HERE;
    }
    round_own(p, p->offset, p->nbytes);
    return ENDED;
}
