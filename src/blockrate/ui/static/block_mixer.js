// The faders of the Block Learning Rate window: one component with one array of values. A gesture lives here alone and
// is told to the server once, at its end: {changes: {name: value}, merge, version}.
const SNAP = 0.015; // of the height: as near to an end as this is the end
const SMALLEST = 1e-4; // what is not 0 never becomes 0 by rounding: that would freeze a block
const NEAR = 7; // pixels: a press this near to a cap grasps it; half of it is still no move
const [TAP, TYPING] = [350, 600]; // milliseconds between the taps of a double tap, between typed digits
const LONGEST_ROW = 19; // faders in a row of a phone
const BANKS = { double: ["Double blocks", "image + text"], single: ["Single blocks", "merged stream"], other: ["Other", "weights"] };
const ICE = "❄\uFE0E"; // as text, not as a coloured picture
const STEPS = { ArrowUp: 0.05, ArrowDown: -0.05, PageUp: 0.25, PageDown: -0.25 };
const VALUES = { Home: 0, End: 1, Delete: 0, Backspace: 1 };

const limit = (value, least, most) => Math.min(most, Math.max(least, value));
const tidy = (value) => (value <= 0 ? 0 : limit(Math.round(value * 1e4) / 1e4, SMALLEST, 1));
const range = (a, b) => Array.from({ length: Math.abs(b - a) + 1 }, (_, k) => Math.min(a, b) + k);
const union = (a, b) => [...new Set([...a, ...b])].sort((one, other) => one - other);

export default {
  // names; values; selected: names; base: learning rate; off: why "other" has no use, or ""; steps: [can undo, can redo];
  // said: [number, news for a screen reader]; version: counts what the server sent.
  props: ["names", "values", "selected", "base", "off", "steps", "said", "version"],
  emits: ["commit", "select", "undo", "redo", "copied"],
  template: `
    <div class="mixer" :class="{ 'is-busy': busy }" :data-selection="chosen.length || null" @clear-selection="select([])">
      <div class="mixer-bar">
        <p v-if="shown < 0 && chosen.length" class="mixer-readout dim">{{ chosen.length }} selected – drag one and they move together</p>
        <p v-else-if="shown < 0" class="mixer-readout dim">Drag across the faders to draw · drag the numbers to select<span class="mixer-keys"> · Shift for a straight line</span></p>
        <p v-else class="mixer-readout">
          <b>{{ label(shown) }}</b> <span v-if="isOff(shown)">{{ off }}</span><span v-else class="mono">×{{ text(vals[shown]) }}</span>
          <span v-if="vals[shown] && !isOff(shown)" class="mono">LR {{ rate(shown) }}</span>
          <span v-if="!vals[shown]" class="is-ice">${ICE} frozen</span>
          <span v-if="chosen.includes(shown)" class="dim">{{ chosen.length }} selected – they move together</span>
        </p>
        <span class="mixer-chip" :class="{ 'is-ice': frozen(all) }">{{ count(all, " of " + all.places.length, "training") }}</span>
        <button v-for="(name, k) in ['Undo', 'Redo']" :key="name" type="button" class="mixer-step" :aria-label="name"
          :title="name + (k ? ' (Ctrl+Shift+Z)' : ' (Ctrl+Z)')" :aria-disabled="!can[k]" @click="step(k)"><q-icon :name="name.toLowerCase()" /></button>
      </div>
      <div class="mixer-banks" @keydown="key" @focusin="focused" @focusout="inside = false" @pointerleave="hot = -1">
        <div v-for="bank in layout" :key="bank.key" role="group" :aria-label="bank.key === 'other' ? 'Other weights' : bank.name" :class="'mixer-bank is-' + bank.key" :style="{ '--n': bank.places.length }">
          <div class="mixer-head" aria-hidden="true">
            <b>{{ bank.name.replace("-", "–") }}</b><span class="dim">{{ bank.hint }}</span>
            <span v-if="bank.key !== 'other'" class="mixer-count" :class="{ 'is-ice': frozen(bank) }">{{ count(bank, "", "active") }}</span>
          </div>
          <div v-for="row in bank.rows" :key="row[0]" class="mixer-row">
            <div class="mixer-scale" aria-hidden="true"><i v-for="m in ['1', '.75', '.5', '.25', '0']" :style="{ '--v': m }">{{ m }}</i></div>
            <div v-for="kind in ['tracks', 'numbers']" :key="kind" :class="'mixer-' + kind" @pointerdown="press($event, row, kind)"
              @pointermove="move($event, row)" @pointerup="release" @pointercancel="release">
              <template v-if="kind === 'tracks'">
                <svg class="mixer-curve" :viewBox="'0 0 ' + row.length + ' 100'" preserveAspectRatio="none" aria-hidden="true">
                  <path v-for="(d, name) in curve(row)" :key="name" :class="name" :d="d" /></svg>
                <div v-for="i in row" :key="i" role="slider" class="fader" :class="look(i)" :style="{ '--v': vals[i] }" :data-index="i"
                  :tabindex="i === roving ? 0 : -1" :aria-label="names[i]" aria-orientation="vertical" aria-valuemin="0" aria-valuemax="1"
                  :aria-valuenow="vals[i]" :aria-valuetext="spoken(i)" :aria-disabled="isOff(i) || null"><i></i></div>
              </template>
              <span v-else v-for="i in row" :key="i" :class="look(i)" aria-hidden="true">{{ i - bank.places[0] }}</span>
            </div>
          </div>
          <p v-if="bank.key === 'other'" class="mixer-note" aria-hidden="true">{{ off }}</p>
        </div>
      </div>
      <div class="mixer-nudge">
        <button type="button" :aria-label="'Lower ' + names[roving]" @click="bump(-0.05)">−</button>
        <input inputmode="decimal" autocomplete="off" :aria-label="'Value of ' + names[roving]" :value="typed ?? text(vals[roving])"
          @input="enter((typed = $event.target.value))" @blur="typed = null" />
        <button type="button" :aria-label="'Raise ' + names[roving]" @click="bump(0.05)">+</button>
      </div>
      <div class="sr-only" aria-live="polite">{{ news }}</div>
    </div>`,
  data() {
    const start = { vals: [...this.values], can: [...this.steps], chosen: [], roving: 0, hot: -1 };
    return { ...start, inside: false, busy: false, narrow: false, typed: null, news: "" };
  },
  created() {
    // What gestures, double taps, typing and undo steps remember from event to event; nothing of it is shown.
    Object.assign(this, { stroke: null, tap: null, last: null, anchor: null, buffer: "", pause: 0, turn: 0, end: new AbortController() });
  },
  mounted() {
    const phone = matchMedia("(max-width: 720px)"), until = { signal: this.end.signal };
    phone.addEventListener("change", () => (this.narrow = phone.matches), until);
    this.narrow = phone.matches;
    (this.$el.closest("[role=dialog]") ?? this.$el).addEventListener("keydown", this.shortcut, until);
  },
  beforeUnmount() { this.end.abort(); },
  computed: {
    layout() {
      return Object.entries(BANKS).flatMap(([key, [title, hint]]) => {
        const places = this.names.flatMap((name, i) => (name.startsWith(key) ? [i] : [])), { length } = places;
        const rows = this.narrow ? Math.ceil(length / LONGEST_ROW) : 1, long = Math.ceil(length / rows);
        const name = key === "other" ? title : `${title} 0-${length - 1}`, bank = { key, name, hint, places };
        return length ? { ...bank, rows: range(0, rows - 1).map((k) => places.slice(k * long, (k + 1) * long)) } : [];
      });
    },
    all() { return { places: range(0, this.names.length - 2) }; },
    shown() { return this.hot >= 0 || !this.inside ? this.hot : this.roving; },
  },
  watch: {
    version() {
      const { stroke } = this, drawn = stroke ? this.changes(stroke.start) : [];
      Object.assign(this, { vals: [...this.values], can: [...this.steps], typed: null, turn: this.turn + 1 });
      if (stroke) stroke.start = [...this.values];
      else this.chosen = this.selected.map((name) => this.names.indexOf(name));
      for (const [i, value] of drawn) this.vals[i] = value; // the hand that draws wins
    },
    said([, news]) { this.tell(news); },
  },
  methods: {
    // -- what is shown and said
    text(value) { return value && value < 0.1 ? value.toPrecision(2) : value > 0.99 && value < 1 ? `${tidy(value)}` : value.toFixed(2); },
    rate(i) { return (this.base * this.vals[i]).toExponential(2).replace(/e([+-])(\d)$/, "e$10$2"); },
    spoken(i) { return this.isOff(i) ? this.off : this.vals[i] ? `${this.text(this.vals[i])}, learning rate ${this.rate(i)}` : "frozen"; },
    isOff(i) { return Boolean(this.off) && this.names[i] === "other"; },
    bankOf(i) { return this.layout.findIndex((bank) => bank.places.includes(i)); },
    label(i) { return this.names[i] === "other" ? "other weights" : this.names[i].replace("_block_", " "); },
    look(i) {
      return { "is-hot": i === this.shown, "is-chosen": this.chosen.includes(i), "is-frozen": !this.vals[i], "is-off": this.isOff(i) };
    },
    frozen({ places }) { return places.filter((i) => !this.vals[i]).length; },
    count(bank, of, word) {
      const cold = this.frozen(bank);
      return cold ? `${ICE} ${cold}${of} frozen` : `${bank.places.length}${of} ${word}`;
    },
    curve(row) {
      const heights = [...row.map((i) => 100 - 100 * this.vals[i]), 100];
      let [area, line, open] = ["", "", false];
      heights.forEach((y, k) => {
        if (y < 100) line += `${open ? "L" : "M"}${k + 0.5} ${y}`;
        if (y < 100) area += `${open ? "" : `M${k} 100V${y}`}L${k + 0.5} ${y}`;
        else if (open) area += `H${k}V100Z`; // a frozen block breaks both
        open = y < 100;
      });
      return { area, line };
    },
    tell(news) { Object.assign(this, { news: "" }).$nextTick(() => (this.news = news)); }, // the same words twice are news twice
    // -- what the server hears
    changes(start) { return this.vals.flatMap((value, i) => (value === start[i] ? [] : [[i, value]])); },
    commit(start, merge, cleared = false) { // cleared: the gesture has ended a selection too
      const changes = Object.fromEntries(this.changes(start).map(([i, value]) => [this.names[i], value]));
      if (!Object.keys(changes).length) return void (cleared && this.select([]));
      this.can = [true, false];
      this.$emit("commit", { changes, merge, cleared, version: this.version });
    },
    step(k) {
      if (!this.can[k]) return;
      this.can = this.can.map((can, other) => can || other !== k); // what is undone can be redone, before the server says so
      this.$emit(["undo", "redo"][k]);
    },
    choose(indices) { Object.assign(this, { chosen: indices.filter((i) => !this.isOff(i)), turn: this.turn + 1 }); },
    select(indices) {
      this.choose(indices);
      if (this.chosen.length > 1) this.tell(`${this.chosen.length} selected`);
      this.$emit("select", this.chosen.map((i) => this.names[i]));
    },
    targets(i) { return this.chosen.includes(i) ? this.chosen : [i]; },
    copy(words) {
      const written = navigator.clipboard?.writeText(words) ?? Promise.reject(); // none without https
      written.then(() => this.$emit("copied", ""), () => this.$emit("copied", words));
    },
    // -- mouse, pen, finger
    press(event, row, kind) {
      if (event.button || !event.isPrimary || this.stroke) return;
      const track = event.currentTarget, box = track.getBoundingClientRect(), at = this.place(event, row, box);
      event.preventDefault(); // no marking of text; the focus is given here
      this.focus(at.i);
      if (this.isOff(at.i)) return this.tell(this.off);
      track.setPointerCapture(event.pointerId);
      Object.assign(this, { turn: this.turn + 1, hot: at.i });
      const [start, { pointerId: id, clientX: x, clientY: y }] = [[...this.vals], event];
      this.stroke = { kind, row, box, start, id, x, y, from: at, to: at, merge: `press ${this.turn}` };
      if (kind === "numbers") this.pressNumber(event, at.i);
      else this.pressFader(event, at);
    },
    pressFader(event, at) {
      const now = this.vals[at.i];
      this.busy = true;
      this.stroke.kind = event.shiftKey ? "line" : this.chosen.includes(at.i) ? "gang" : "paint";
      if (this.stroke.kind !== "paint") return;
      this.stroke.cleared = this.chosen.length > 0;
      if (this.stroke.cleared) this.choose([]);
      if (Math.abs(at.y - now) * this.stroke.box.height < NEAR) at.value = now;
      else this.draw(at, at);
    },
    pressNumber(event, i) {
      const add = event.ctrlKey || event.metaKey, here = this.chosen.includes(i);
      this.anchor = event.shiftKey ? (this.anchor ?? this.last ?? i) : i;
      this.stroke.before = this.chosen;
      this.stroke.kept = add ? this.chosen.filter((j) => j !== i) : [];
      this.stroke.out = add ? here : here && this.chosen.length === 1 && !event.shiftKey; // pressed again
      this.choose(this.stroke.out ? this.stroke.kept : union(this.stroke.kept, range(this.anchor, i)));
    },
    move(event, row) {
      const { stroke } = this;
      if (!stroke) {
        const box = event.currentTarget.getBoundingClientRect();
        this.hot = event.pointerType === "mouse" ? this.place(event, row, box).i : -1;
      } else if (event.pointerId === stroke.id) {
        stroke.moved ||= Math.hypot(event.clientX - stroke.x, event.clientY - stroke.y) > NEAR / 2;
        if (stroke.moved) this.follow(stroke, this.place(event, stroke.row, stroke.box));
      }
    },
    follow(stroke, at) {
      const by = Math.round((at.y - stroke.from.y) * 100) / 100;
      this.hot = at.i;
      if (stroke.kind === "numbers" && !stroke.out) this.choose(union(stroke.kept, range(this.anchor, at.i)));
      if (["line", "gang"].includes(stroke.kind)) this.vals = [...stroke.start];
      if (stroke.kind === "paint") this.draw(stroke.to, at); // a quick pointer skips faders
      if (stroke.kind === "line") this.draw(stroke.from, at);
      if (stroke.kind === "gang") for (const i of this.chosen) this.vals[i] = tidy(stroke.start[i] + by);
      stroke.to = at;
    },
    release(event) {
      const { stroke, tap } = this;
      if (stroke?.id !== event.pointerId) return;
      Object.assign(this, { stroke: null, tap: null, busy: false, hot: event.pointerType === "mouse" ? this.hot : -1 });
      const cancelled = event.type === "pointercancel"; // the finger scrolls the page
      if (stroke.kind === "numbers") return this.select(cancelled ? stroke.before : this.chosen);
      if (cancelled) return void ((this.vals = stroke.start), stroke.cleared && this.select([]));
      const { i } = stroke.to, quick = tap && event.timeStamp - tap.time < TAP;
      const twice = quick && !stroke.moved && tap.i === i && Math.abs(tap.y - stroke.y) < 2 * NEAR;
      if (twice) for (const j of this.targets(i)) this.vals[j] = 1;
      else if (stroke.kind === "line" && !stroke.moved) this.lineFromLast(stroke.to);
      if (!twice && !stroke.moved) this.tap = { i, y: stroke.y, time: event.timeStamp, merge: stroke.merge };
      this.last = this.anchor = i;
      this.commit(stroke.start, twice ? tap.merge : stroke.merge, stroke.cleared); // both taps are one undo step
    },
    place(event, row, box) {
      const x = (event.clientX - box.left) / box.width, y = 1 - (event.clientY - box.top) / box.height;
      const value = y > 1 - SNAP ? 1 : y < SNAP ? 0 : Math.round(y * 100) / 100;
      return { i: row[limit(Math.floor(x * row.length), 0, row.length - 1)], y, value };
    },
    draw(a, b) {
      for (const i of range(a.i, b.i)) {
        const way = a.i === b.i ? 1 : (i - a.i) / (b.i - a.i);
        this.vals[i] = tidy(a.value * (1 - way) + b.value * way);
      }
    },
    lineFromLast(at) {
      const same = this.last !== null && this.bankOf(this.last) === this.bankOf(at.i);
      this.draw(same ? { i: this.last, value: this.vals[this.last] } : at, at);
    },
    // -- keyboard
    focus(i) { this.$el.querySelector(`[data-index="${i}"]`).focus({ preventScroll: true }); },
    focused({ target }) {
      const i = Number(target.dataset.index);
      Object.assign(this, { turn: this.turn + (i !== this.roving), inside: true, roving: i, buffer: "", typed: null });
    },
    shortcut(event) {
      const k = { z: event.shiftKey ? 1 : 0, y: 1 }[event.key.toLowerCase()], ctrl = event.ctrlKey || event.metaKey;
      if (k === undefined || !ctrl || event.altKey || event.target.matches("input, textarea")) return;
      event.preventDefault();
      this.step(k);
    },
    key(event) {
      const { key, shiftKey: shift } = event, ctrl = event.ctrlKey || event.metaKey, i = this.roving;
      const b = this.bankOf(i), way = { ArrowLeft: -1, ArrowRight: 1 }[key];
      const digit = !ctrl && /^[0-9.,]$/.test(key), all = ctrl && key.toLowerCase() === "a";
      if (event.altKey || !(way || digit || all || key in STEPS || key in VALUES)) return;
      event.preventDefault();
      if (digit) return this.type(key);
      this.buffer = "";
      if (way) this.go(ctrl ? this.layout[b + way]?.places[0] : i + way, shift);
      else if (key in STEPS) this.bump(shift && key.startsWith("Arrow") ? STEPS[key] / 5 : STEPS[key]);
      else if (key in VALUES) this.put(() => VALUES[key]);
      else this.select(this.layout[b].places);
    },
    go(i, extend) {
      if (!this.names[i]) return;
      if (!extend) this.anchor = i;
      if (extend) this.select(range((this.anchor ??= this.roving), i));
      else if (this.chosen.length && !this.chosen.includes(i)) this.select([]);
      this.focus(i);
    },
    bump(by) { this.put((value) => value + by); },
    put(change) {
      const start = [...this.vals];
      if (this.isOff(this.roving)) return this.tell(this.off);
      for (const i of this.targets(this.roving)) this.vals[i] = tidy(change(start[i]));
      this.last = this.roving;
      this.commit(start, `keys ${this.turn}`); // keys pressed on the same faders are one undo step
    },
    type(sign) {
      this.buffer = this.enter(this.buffer + sign) ? this.buffer + sign : "";
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
  },
};
