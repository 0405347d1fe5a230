// Keys, digits and the small field of a phone: methods of block_mixer.js.
import { range, tidy } from "blockrate-mixer/numbers.js";

const STEPS = { ArrowUp: 0.05, ArrowDown: -0.05, PageUp: 0.25, PageDown: -0.25 };
const VALUES = { Home: 0, End: 1, Delete: 0, Backspace: 1 };
const WAYS = { ArrowLeft: -1, ArrowRight: 1 };
// milliseconds between typed digits
const TYPING = 600;

export default {
  focus(i) {
    this.$el.querySelector(`[data-index="${i}"]`).focus({ preventScroll: true });
  },
  focused({ target }) {
    const i = Number(target.dataset.index);
    if (i !== this.roving) this.turn += 1;
    this.inside = true;
    this.touched = true;
    this.roving = i;
    this.buffer = "";
    this.typed = null;
  },
  shortcut(event) {
    const ctrl = event.ctrlKey || event.metaKey;
    const k = { z: event.shiftKey ? 1 : 0, y: 1 }[event.key.toLowerCase()];
    if (k === undefined || !ctrl || event.altKey) return;
    if (event.target.matches("input, textarea")) return;
    event.preventDefault();
    this.step(k);
  },
  key(event) {
    const { key, shiftKey: shift } = event;
    const ctrl = event.ctrlKey || event.metaKey;
    const way = WAYS[key];
    const digit = !ctrl && /^[0-9.,]$/.test(key);
    const all = ctrl && key.toLowerCase() === "a";
    const ours = way || digit || all || key in STEPS || key in VALUES;
    if (event.altKey || !ours) return;
    event.preventDefault();
    if (digit) return this.type(key);
    this.buffer = "";
    const bank = this.bankOf(this.roving);
    if (way && ctrl) this.go(this.layout[bank + way]?.places[0], shift);
    else if (way) this.go(this.roving + way, shift);
    else if (key in STEPS) this.bump(this.stepOf(key, shift));
    else if (key in VALUES) this.put(() => VALUES[key]);
    else this.select(this.layout[bank].places);
  },
  stepOf(key, shift) {
    const fine = shift && key.startsWith("Arrow");
    return fine ? STEPS[key] / 5 : STEPS[key];
  },
  go(i, extend) {
    if (!this.names[i]) return;
    if (!extend) this.anchor = i;
    if (extend) this.select(range((this.anchor ??= this.roving), i));
    else if (this.chosen.length && !this.chosen.includes(i)) this.select([]);
    this.focus(i);
  },
  bump(by) {
    this.put((value) => this.raised(value, by));
  },
  put(change) {
    const start = [...this.vals];
    if (this.isOff(this.roving)) return this.tell(this.off);
    for (const i of this.targets(this.roving)) this.vals[i] = tidy(change(start[i]));
    this.last = this.roving;
    // keys pressed on the same faders are one undo step
    this.commit(start, `keys ${this.turn}`);
  },
  type(sign) {
    const right = this.enter(this.buffer + sign);
    this.buffer = right ? this.buffer + sign : "";
    clearTimeout(this.pause);
    this.pause = setTimeout(() => (this.buffer = ""), TYPING);
  },
  enter(written) {
    const value = Number(written.replace(",", ".").replace(/^\.$/, "0"));
    const right = written.trim() !== "" && value >= 0 && value <= 1;
    if (right) this.put(() => value);
    else this.tell("A rate is a number from 0 to 1");
    return right;
  },
};
