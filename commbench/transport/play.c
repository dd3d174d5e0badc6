/* Plays one rank's part of an exchange, step by step.
 *
 * A rank which plays its part in Python instead (commbench/exchange.py) is no different to the others.
 * Nothing here blocks: where a message does not come, the call returns after so many yields of the
 * core, and the next one goes on from there.
 */
#include <sched.h>

#include "messages.h"

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

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Words in a row of each table, and in a program: compiled.py makes sure that it means the same. */
const int64_t commbench_layout[] = {
    sizeof(step_t) / 8,    sizeof(message_t) / 8, sizeof(term_t) / 8,
    sizeof(receive_t) / 8, sizeof(peer_t) / 8,    sizeof(program_t) / 8,
};

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
