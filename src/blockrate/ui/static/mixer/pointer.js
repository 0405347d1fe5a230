// Mouse, pen and finger on the faders: methods of block_mixer.js.
import { limit, range, rateAt, tidy, union } from "blockrate-mixer/numbers.js";

// of the height: as near to an end as this is the end
const SNAP = 0.015;
// pixels: a press this near to a cap grasps it; half of it is still no move
const NEAR = 7;
// milliseconds between the taps of a double tap
const TAP = 350;

export default {
  press(event, row, kind) {
    if (event.button || !event.isPrimary || this.stroke) return;
    const track = event.currentTarget;
    const box = track.getBoundingClientRect();
    const at = this.place(event, row, box);
    // no marking of text; the focus is given here
    event.preventDefault();
    this.focus(at.i);
    if (this.isOff(at.i)) return this.tell(this.off);
    track.setPointerCapture(event.pointerId);
    this.turn += 1;
    this.hot = at.i;
    this.stroke = {
      kind,
      row,
      box,
      start: [...this.vals],
      id: event.pointerId,
      x: event.clientX,
      y: event.clientY,
      from: at,
      to: at,
      merge: `press ${this.turn}`,
    };
    if (kind === "numbers") this.pressNumber(event, at.i);
    else this.pressFader(event, at);
  },
  pressFader(event, at) {
    const now = this.vals[at.i];
    this.busy = true;
    this.stroke.kind = this.kindOfStroke(event, at.i);
    if (this.stroke.kind !== "paint") return;
    this.stroke.cleared = this.chosen.length > 0;
    if (this.stroke.cleared) this.choose([]);
    const distance = Math.abs(at.y - this.high(now)) * this.stroke.box.height;
    if (distance < NEAR) at.value = now;
    else this.draw(at, at);
  },
  kindOfStroke(event, i) {
    if (event.shiftKey) return "line";
    return this.chosen.includes(i) ? "gang" : "paint";
  },
  pressNumber(event, i) {
    const { stroke } = this;
    const add = event.ctrlKey || event.metaKey;
    const here = this.chosen.includes(i);
    const pressedAgain = here && this.chosen.length === 1 && !event.shiftKey;
    this.anchor = event.shiftKey ? (this.anchor ?? this.last ?? i) : i;
    stroke.before = this.chosen;
    stroke.kept = add ? this.chosen.filter((j) => j !== i) : [];
    stroke.out = add ? here : pressedAgain;
    if (stroke.out) this.choose(stroke.kept);
    else this.choose(union(stroke.kept, range(this.anchor, i)));
  },
  move(event, row) {
    const { stroke } = this;
    if (!stroke) {
      const box = event.currentTarget.getBoundingClientRect();
      this.hot = event.pointerType === "mouse" ? this.place(event, row, box).i : -1;
      return;
    }
    if (event.pointerId !== stroke.id) return;
    const far = Math.hypot(event.clientX - stroke.x, event.clientY - stroke.y);
    stroke.moved ||= far > NEAR / 2;
    if (stroke.moved) this.follow(stroke, this.place(event, stroke.row, stroke.box));
  },
  follow(stroke, at) {
    const by = Math.round((at.y - stroke.from.y) * 100) / 100;
    this.hot = at.i;
    if (stroke.kind === "numbers" && !stroke.out)
      this.choose(union(stroke.kept, range(this.anchor, at.i)));
    if (["line", "gang"].includes(stroke.kind)) this.vals = [...stroke.start];
    // from the last place: a quick pointer skips faders
    if (stroke.kind === "paint") this.draw(stroke.to, at);
    if (stroke.kind === "line") this.draw(stroke.from, at);
    if (stroke.kind === "gang")
      for (const i of this.chosen) this.vals[i] = this.raised(stroke.start[i], by);
    stroke.to = at;
  },
  release(event) {
    const { stroke, tap } = this;
    if (stroke?.id !== event.pointerId) return;
    // so ends a finger that scrolls the page
    const cancelled = event.type === "pointercancel";
    this.stroke = null;
    this.tap = null;
    this.busy = false;
    if (event.pointerType !== "mouse") this.hot = -1;
    if (stroke.kind === "numbers")
      return this.select(cancelled ? stroke.before : this.chosen);
    if (cancelled) return this.takeBack(stroke);
    this.endStroke(event, stroke, tap);
  },
  takeBack(stroke) {
    this.vals = stroke.start;
    if (stroke.cleared) this.select([]);
  },
  endStroke(event, stroke, tap) {
    const { i } = stroke.to;
    const twice = this.isSecondTap(event, stroke, tap);
    if (twice) for (const j of this.targets(i)) this.vals[j] = 1;
    else if (stroke.kind === "line" && !stroke.moved) this.lineFromLast(stroke.to);
    if (!twice && !stroke.moved)
      this.tap = { i, y: stroke.y, time: event.timeStamp, merge: stroke.merge };
    this.last = i;
    this.anchor = i;
    // both taps are one undo step
    this.commit(stroke.start, twice ? tap.merge : stroke.merge, stroke.cleared);
  },
  isSecondTap(event, stroke, tap) {
    if (!tap || stroke.moved || tap.i !== stroke.to.i) return false;
    const quick = event.timeStamp - tap.time < TAP;
    return quick && Math.abs(tap.y - stroke.y) < 2 * NEAR;
  },
  // Which fader of a row a pointer is on, how high, and the value there.
  place(event, row, box) {
    const x = (event.clientX - box.left) / box.width;
    const y = 1 - (event.clientY - box.top) / box.height;
    const column = limit(Math.floor(x * row.length), 0, row.length - 1);
    let value = this.log ? rateAt(y, true) : Math.round(y * 100) / 100;
    if (y > 1 - SNAP) value = 1;
    if (y < SNAP) value = 0;
    return { i: row[column], y, value };
  },
  draw(a, b) {
    for (const i of range(a.i, b.i)) {
      if (this.isOff(i)) continue;
      const way = a.i === b.i ? 1 : (i - a.i) / (b.i - a.i);
      const [from, to] = [this.high(a.value), this.high(b.value)];
      this.vals[i] = tidy(rateAt(from * (1 - way) + to * way, this.log));
    }
  },
  lineFromLast(at) {
    const same = this.last !== null && this.bankOf(this.last) === this.bankOf(at.i);
    this.draw(same ? { i: this.last, value: this.vals[this.last] } : at, at);
  },
};
