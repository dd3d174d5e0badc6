/* How a program's messages leave and arrive: by the tokens of mailbox.py between ranks that are near,
 * by MPI's persistent requests between those that are far. */
#include "elements.h"
#include "program.h"

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
    return token[1] == PRIVATE ? NULL : p->buffers[token[1] * p->near_count + peer] + token[2];
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
