"""Who leads: courtesy election with epochs.

Rules that this module keeps:

1. A factory that hears no leader asks the others whether they do. It stands only when
   none of those that answer leads or hears a leader, and nobody who is able to lead and
   goes before it answers. The one whose copy of the registry is of a newer epoch goes
   before, among equals the one that stands earlier in the list.
2. An epoch is on disk before it is used, and its number is higher than any that this
   factory, or anyone whose message it got, has seen.
3. Of two leaders that meet, the one of the newer epoch stays. Nobody follows an epoch
   older than one that he knows to have led.
4. With a quorum of ``majority``, a leader leads as long as more than half of the
   factories of its list promise to hear nobody else. A promise lasts for the leader's
   time-out, is given to one at a time, and is presumed given by a factory that has
   just started or whose time has jumped. It ends early only when the one that it was
   given to leads no more with the epoch that it was given for.
5. A leader that was not heard of by itself for the time-out (its process was stopped,
   or its computer slept) steps down before it does anything else.
6. A factory that leaves does not stand any more, nor does anyone wait for it.

A factory is named by the text under which it stands in the list.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from opencluster.core.epochs import NO_EPOCH, Epoch
from opencluster.core.factory_messages import (
    Ask,
    Ballot,
    Beat,
    Grant,
    Heard,
    Message,
    Resign,
    Stand,
    Tell,
)
from opencluster.core.promises import SOMEBODY, Lease, Promise

PATIENCE_PART = 0.5
"""Part of the time-out for which answers are waited for."""
UNABLE_PARTS = 5.0
"""Time-outs for which a factory that could not save its epoch does not stand."""
GUEST_PARTS = 10.0
"""Time-outs for which a factory that is not in the list is told who leads."""
MAX_GUESTS = 16


class Role(Enum):
    """What a factory is doing."""

    LOOKING = "looking"
    STANDING = "standing"
    FOLLOWING = "following"
    LEADING = "leading"


class Quorum(Enum):
    """Whom a leader needs."""

    COURTESY = "courtesy"
    MAJORITY = "majority"


# --- effects ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send this to another factory."""

    to: str
    message: Message


@dataclass(frozen=True, slots=True)
class SaveEpochs:
    """Put these on disk, then call `saved`, or `not_saved` when that failed.

    Attributes
    ----------
    seen : int
        The highest number that any factory is known to have seen.
    led : Epoch
        The newest epoch that anyone is known to have led.
    wanted : Epoch or None
        The epoch to be used, when one waits for this.
    """

    seen: int
    led: Epoch
    wanted: Epoch | None = None


@dataclass(frozen=True, slots=True)
class Lead:
    """Lead from now on, with this epoch."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Follow:
    """Follow this leader: take its registry."""

    leader: str
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class StepDown:
    """Lead, or follow, no more; who leads is not known."""

    reason: str


Effect = SendMessage | SaveEpochs | Lead | Follow | StepDown


class Election:
    """One factory's part in the election.

    Parameters
    ----------
    names : sequence of str
        All factories in the order of the list, this one included.
    me : str
        This one.
    randomness : random.Random
        Draws the number of this run, and how long a candidate that failed waits.
    timeout_s : float
        Silence after which a leader counts as gone.
    beat_s : float
        Time between two beats of a leader; `tick` is to be called about as often.
    quorum : Quorum
        Whom a leader needs.
    seen : int
        Highest number on disk.
    led : Epoch
        Newest epoch on disk that anyone led.

    Attributes
    ----------
    revision : int
        Of the registry that this factory has; set by who keeps it.
    copy : Epoch
        Of the leader whose registry that is, or was; set by who keeps it.
    """

    def __init__(
        self,
        names: Sequence[str],
        me: str,
        randomness: random.Random,
        timeout_s: float = 1.0,
        beat_s: float = 0.2,
        quorum: Quorum = Quorum.COURTESY,
        seen: int = 0,
        led: Epoch = NO_EPOCH,
    ) -> None:
        self.names = list(names)
        self.me = me
        self.place = self.names.index(me)
        self.timeout_s = timeout_s
        self.beat_s = beat_s
        self.quorum = quorum
        self.run = randomness.getrandbits(48)
        self.role = Role.LOOKING
        self.leader = ""
        self.led = led
        self.seen = max(seen, led.number)
        self.revision = 0
        self.copy = NO_EPOCH
        self._randomness = randomness
        self._now = 0.0
        self._ticked_at = 0.0
        self._round = 0
        self._asked_at = 0.0
        self._answers: dict[str, Tell] = {}
        self._rumour = ""
        self._lost: set[str] = set()
        self._heard_at = 0.0
        self._wanted: Epoch | None = None
        self._is_saved = False
        self._stood_at = 0.0
        self._stand_after = 0.0
        self._unable_until = 0.0
        self._is_leaving = False
        # with a majority: too few answered when it was last asked
        self._is_cut_off = False
        self._promise = Promise(timeout_s, beat_s)
        is_majority = quorum is Quorum.MAJORITY
        self._lease = Lease(len(self.names) // 2 if is_majority else 0, timeout_s)
        self._sequence = 0
        self._guests: dict[str, float] = {}

    # --- events --------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Begin to look for a leader."""
        self._now = self._ticked_at = now
        # what was promised before is not known any more
        self._promise.give(SOMEBODY)
        self._unable_until = self._stand_after = now
        return self._look(now)

    def tick(self, now: float) -> list[Effect]:
        """Do what the passing of time brings about; called about every `beat_s`."""
        effects = self.observe(now)
        self._ticked_at = now
        if self.role is Role.LEADING:
            effects += self._beat(now)
        elif self.role is Role.FOLLOWING:
            if now - self._heard_at > self.timeout_s:
                # long enough: no answer of that one is waited for again
                self._lost.add(self.leader)
                effects += self._lose_leader(now, f"{self.leader} is silent")
        elif self.role is Role.STANDING:
            if self._is_patience_over(now, self._stood_at):
                pause_s = self._randomness.uniform(0.0, self.timeout_s)
                self._stand_after = now + pause_s
                effects += self._look(now)
        elif self._is_round_over(now):
            effects += self._decide(now) or self._look(now)
        return effects

    def receive(self, now: float, sender: str, message: Ballot) -> list[Effect]:
        """Take in a message of another factory."""
        effects = self.observe(now)
        self._lost.discard(sender)
        self._note_guest(now, sender)
        self.seen = max(self.seen, message.seen, message.led.number)
        match message:
            case Ask(led=led, round=round):
                if self._leads_no_more(sender, led):
                    effects += self._lose_leader(now, f"{sender} looks for a leader")
                effects += [*self._learn(now, led), self._tell(now, sender, round)]
            case Tell():
                effects += self._take_answer(now, sender, message)
            case Beat():
                effects += self._take_beat(now, sender, message)
            case Heard():
                self._take_promise(sender, message)
            case Stand(led=led, epoch=epoch):
                effects += self._learn(now, led)
                effects += self._take_stand(now, sender, epoch)
            case Grant(epoch=epoch):
                effects += self._take_grant(now, sender, epoch)
            case _:
                effects += self._take_resignation(now, sender, message.led)
        return effects

    def claimed(self, now: float, epoch: Epoch) -> list[Effect]:
        """Take in an epoch that somebody who is no factory knows to have led."""
        effects = self.observe(now)
        self.seen = max(self.seen, epoch.number)
        return effects + self._learn(now, epoch)

    def peer_lost(self, now: float, name: str) -> list[Effect]:
        """Take note that the connection to a factory broke."""
        effects = self.observe(now)
        self._lost.add(name)
        if self.role is Role.FOLLOWING and name == self.leader:
            effects += self._lose_leader(now, f"the connection to {name} broke")
        elif self.role is Role.LOOKING:
            effects += self._decide(now)
        return effects

    def peer_connected(self, now: float, name: str) -> list[Effect]:
        """Take note that the connection to a factory stands."""
        effects = self.observe(now)
        self._lost.discard(name)
        if self.role is Role.LOOKING and name not in self._answers:
            ask = Ask(self.seen, self.led, self._round)
            effects.append(SendMessage(name, ask))
        return effects

    def saved(self, now: float, epoch: Epoch) -> list[Effect]:
        """Use an epoch that is on disk now."""
        effects = self.observe(now)
        if self.role is not Role.STANDING or epoch != self._wanted:
            return effects
        self._is_saved = True
        if self.quorum is Quorum.COURTESY:
            return effects + self._lead(now)
        if self._promise.is_anothers(self.me):
            return effects + self._look(now)
        self._stood_at = now
        self._promise.give(self.me, epoch)
        self._lease.forget()
        if self._lease.is_enough:
            return effects + self._lead(now)
        return effects + self._to_others(Stand(self.seen, self.led, epoch))

    def not_saved(self, now: float) -> list[Effect]:
        """Leave it to the others to lead: this one cannot save its epoch."""
        effects = self.observe(now)
        self._unable_until = now + UNABLE_PARTS * self.timeout_s
        if self.role is Role.STANDING:
            effects += self._look(now)
        return effects

    def resign(self, now: float) -> list[Effect]:
        """Leave in good order: the others need not wait for the time-out."""
        effects = self.observe(now)
        self._is_leaving = True
        if self.role is Role.STANDING:
            effects += self._look(now)
        elif self.role is Role.LEADING:
            effects += self._to_others(Resign(self.seen, self.led))
            self._lead_no_more()
            effects.append(StepDown("this factory leaves"))
        return effects

    def observe(self, now: float) -> list[Effect]:
        """Let time pass; a leader that was away for too long leads no more."""
        step_s = now - self._now
        self._now = now
        self._promise.let_pass(step_s)
        if step_s < 0.0:
            self._heard_at = self._asked_at = self._stood_at = self._ticked_at = now
            self._stand_after = self._unable_until = now
            if self.role is Role.STANDING:
                # since when a promise counts that comes now, cannot be told any more
                return self._look(now)
        if self.role is not Role.LEADING or len(self.names) == 1:
            return []
        away_s = now - self._ticked_at
        if step_s < 0.0:
            reason = "the clock went back"
        elif away_s > self.timeout_s:
            reason = f"this process stood still for {away_s:.1f} s"
            # another may lead by now, and what broke meanwhile is not open again yet
            self._stand_after = now + PATIENCE_PART * self.timeout_s
        elif now >= self._lease.end:
            reason = "too few of the others answer"
        else:
            return []
        return self._lose_leader(now, reason)

    # --- questions -----------------------------------------------------------

    def may_write(self, now: float) -> bool:
        """Return whether this factory may change the registry at this moment."""
        return self.role is Role.LEADING and self._now <= now < self._lease.end

    def is_able(self, now: float) -> bool:
        """Return whether this factory could lead."""
        is_hindered = self._is_leaving or self._is_cut_off
        return now >= self._unable_until and not is_hindered

    @property
    def said_to_lead(self) -> str:
        """Who leads, for those who look for the leader; empty when nobody is known.

        A factory that hears no leader itself names the one whom others hear. It does
        not follow it for that.
        """
        return self.leader or self._rumour

    def silence_s(self, now: float) -> float:
        """Return for how long the leader was not heard of; 0 for itself."""
        return 0.0 if self.role is Role.LEADING else max(0.0, now - self._heard_at)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        assert self.led.number <= self.seen
        assert (self.role is Role.LEADING) == (self.leader == self.me)
        assert (self.role is Role.FOLLOWING) == (self.leader not in ("", self.me))
        assert (self.role is Role.STANDING) == (self._wanted is not None)
        assert self.said_to_lead != self.me or self.role is Role.LEADING
        if self.role is Role.LEADING:
            assert (self.led.place, self.led.run) == (self.place, self.run)
        if self._wanted is not None:
            assert self._wanted.is_newer_than(self.led)
        self._lease.check_invariants()
        assert len(self._guests) <= MAX_GUESTS

    # --- time ----------------------------------------------------------------

    def _is_patience_over(self, now: float, since: float) -> bool:
        return now - since >= PATIENCE_PART * self.timeout_s

    # --- looking -------------------------------------------------------------

    def _look(self, now: float) -> list[Effect]:
        """Ask everyone anew."""
        # nothing comes of it any more, so others may have it
        self._promise.end(self.me)
        self.role, self.leader, self._wanted = Role.LOOKING, "", None
        self._round += 1
        self._asked_at = now
        self._answers = {}
        asked = self._to_others(Ask(self.seen, self.led, self._round))
        return [*asked, *self._decide(now)]

    def _is_round_over(self, now: float) -> bool:
        awaited = set(self.names) - {self.me} - self._lost - self._answers.keys()
        return not awaited or self._is_patience_over(now, self._asked_at)

    def _decide(self, now: float) -> list[Effect]:
        """Stand, when enough answers are here and nobody goes before."""
        if not self._is_round_over(now):
            return []
        answered = len(self._answers.keys() & set(self.names))
        self._is_cut_off = answered < self._lease.needed
        roles = {answer.role for answer in self._answers.values()}
        is_led = bool({Role.LEADING.value, Role.FOLLOWING.value} & roles)
        self._rumour = self._newest_rumour()
        is_behind = any(map(self._goes_before, self.names))
        if is_led or is_behind or not self._can_stand(now):
            return []
        number = self.seen = self.seen + 1
        self.role = Role.STANDING
        self._wanted = Epoch(number, self.place, self.run)
        self._is_saved = False
        self._stood_at = now
        return [SaveEpochs(self.seen, self.led, self._wanted)]

    def _goes_before(self, name: str) -> bool:
        """Return whether a factory answers, is able to lead, and should do so first."""
        answer = self._answers.get(name)
        if answer is None or not answer.is_able:
            return False
        is_earlier = self.names.index(name) < self.place
        if answer.copy == self.copy:
            return is_earlier
        return answer.copy.is_newer_than(self.copy)

    def _newest_rumour(self) -> str:
        """Return who leads, by what those say that hear a leader."""
        name, epoch = "", NO_EPOCH
        for answer in self._answers.values():
            is_somebody = answer.leader not in ("", self.me)
            if is_somebody and not epoch.is_newer_than(answer.led):
                name, epoch = answer.leader, answer.led
        return name

    def _can_stand(self, now: float) -> bool:
        if now < self._stand_after or not self.is_able(now):
            return False
        is_courtesy = self.quorum is Quorum.COURTESY
        return is_courtesy or not self._promise.is_anothers(self.me)

    def _tell(self, now: float, to: str, round: int = 0) -> SendMessage:
        able, role = self.is_able(now), self.role.value
        shared = (self.seen, self.led, round, role, able, self.leader, self.copy)
        return SendMessage(to, Tell(*shared))

    def _take_answer(self, now: float, sender: str, tell: Tell) -> list[Effect]:
        is_current = self.role is Role.LOOKING and tell.round == self._round
        if not is_current:
            return self._learn(now, tell.led)
        self._answers[sender] = tell
        is_leading = tell.role == Role.LEADING.value
        if is_leading and not self.led.is_newer_than(tell.led):
            return self._follow(now, sender, tell.led)
        return [*self._learn(now, tell.led), *self._decide(now)]

    def _learn(self, now: float, led: Epoch) -> list[Effect]:
        """Take in that somebody led, whom nobody older may follow."""
        if not led.is_newer_than(self.led):
            return []
        self.led = led
        saving: list[Effect] = [SaveEpochs(self.seen, led)]
        if self.role in (Role.LEADING, Role.FOLLOWING):
            saving += self._lose_leader(now, f"epoch {list(led)} is newer")
        elif self._wanted is not None and not self._wanted.is_newer_than(led):
            saving += self._look(now)
        return saving

    # --- following -----------------------------------------------------------

    def _follow(self, now: float, leader: str, epoch: Epoch) -> list[Effect]:
        effects: list[Effect] = []
        if self.role is Role.LEADING:
            effects.append(StepDown(f"{leader} leads with epoch {list(epoch)}"))
            self._lead_no_more()
        self._promise.end(self.me)
        self._is_cut_off, self._rumour = False, ""
        if epoch != self.led:
            self.led = epoch
            effects.append(SaveEpochs(self.seen, epoch))
        self.role, self.leader, self._wanted = Role.FOLLOWING, leader, None
        self._heard_at = now
        return [*effects, Follow(leader, epoch)]

    def _take_beat(self, now: float, sender: str, beat: Beat) -> list[Effect]:
        if self.led.is_newer_than(beat.led):
            return [self._tell(now, sender)]
        effects: list[Effect] = []
        if (self.leader, self.led) != (sender, beat.led):
            effects += self._follow(now, sender, beat.led)
        self._heard_at = now
        is_promise = not self._promise.is_anothers(sender)
        if is_promise:
            self._promise.give(sender, beat.led)
        heard = Heard(self.seen, self.led, beat.sequence, self.revision, is_promise)
        return [*effects, SendMessage(sender, heard)]

    def _lose_leader(self, now: float, reason: str) -> list[Effect]:
        self._lead_no_more()
        return [StepDown(reason), *self._look(now)]

    def _take_resignation(self, now: float, sender: str, led: Epoch) -> list[Effect]:
        if not self._leads_no_more(sender, led):
            return []
        return self._lose_leader(now, f"{sender} leaves")

    def _leads_no_more(self, sender: str, led: Epoch) -> bool:
        """Return whether the leader itself, which speaks of this epoch, is past it.

        A leader that asks who leads has stepped down, or is a new process; before it
        led, it could not say that it had. What was promised to it ends with that.
        """
        self._promise.end(sender, led)
        is_following = self.role is Role.FOLLOWING
        return is_following and (sender, led) == (self.leader, self.led)

    # --- leading -------------------------------------------------------------

    def _lead(self, now: float) -> list[Effect]:
        assert self._wanted is not None
        self.role, self.leader, self.led = Role.LEADING, self.me, self._wanted
        self._wanted, self._rumour = None, ""
        self._ticked_at = now
        self._sequence = 0
        saving = SaveEpochs(self.seen, self.led)
        return [Lead(self.led), saving, *self._beat(now)]

    def _lead_no_more(self) -> None:
        self.role, self.leader = Role.LOOKING, ""
        self._lease.forget()

    def _beat(self, now: float) -> list[Effect]:
        self._sequence += 1
        self._lease.asked(now, self._sequence)
        beat = Beat(self.seen, self.led, self._sequence, self.revision)
        guests = [n for n, at in self._guests.items() if self._is_guest(now, at)]
        return [*self._to_others(beat), *(SendMessage(g, beat) for g in guests)]

    def _take_promise(self, sender: str, heard: Heard) -> None:
        is_ours = self.role is Role.LEADING and heard.led == self.led
        if is_ours and heard.is_promise and sender in self.names:
            self._lease.answered(sender, heard.sequence)

    def _take_stand(self, now: float, sender: str, epoch: Epoch) -> list[Effect]:
        is_before_me = sender in self.names[: self.place]
        effects: list[Effect] = []
        if self.role is Role.STANDING and is_before_me:
            effects += self._look(now)
        is_free = self.role not in (Role.LEADING, Role.STANDING)
        is_newest = epoch.is_newer_than(self.led)
        if not is_free or not is_newest or self._promise.is_anothers(sender):
            return [*effects, self._tell(now, sender)]
        self.seen = max(self.seen, epoch.number)
        self._promise.give(sender, epoch)
        return [*effects, SendMessage(sender, Grant(self.seen, self.led, epoch))]

    def _take_grant(self, now: float, sender: str, epoch: Epoch) -> list[Effect]:
        is_ours = self._is_saved and epoch == self._wanted
        if not is_ours or sender not in self.names:
            return []
        self._lease.granted(sender, self._stood_at)
        return self._lead(now) if self._lease.is_enough else []

    # --- the others ----------------------------------------------------------

    def _to_others(self, message: Ballot) -> list[Effect]:
        return [SendMessage(name, message) for name in self.names if name != self.me]

    def _note_guest(self, now: float, name: str) -> None:
        """Remember a factory that is not in the list, as one that joins."""
        if name in self.names:
            return
        self._guests.pop(name, None)
        self._guests[name] = now
        if len(self._guests) > MAX_GUESTS:
            del self._guests[next(iter(self._guests))]

    def _is_guest(self, now: float, last_heard_at: float) -> bool:
        return now - last_heard_at < GUEST_PARTS * self.timeout_s
