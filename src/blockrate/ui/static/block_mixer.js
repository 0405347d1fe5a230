// The faders of the Block Learning Rate window: one component with one array of values.
// A gesture lives here alone and is told to the server once, at its end:
// {changes: {name: value}, merge, version}.
import keyboard from "blockrate-mixer/keyboard.js";
import { range } from "blockrate-mixer/numbers.js";
import pointer from "blockrate-mixer/pointer.js";
import server from "blockrate-mixer/server.js";
import words, { ICE } from "blockrate-mixer/words.js";

// faders in a row of a phone
const LONGEST_ROW = 19;
const PHONE = "(max-width: 720px)";
const BANKS = {
  double: ["Double blocks", "image + text"],
  single: ["Single blocks", "merged stream"],
  other: ["Other", "weights"],
};

const BAR = `
  <div class="mixer-bar">
    <p v-if="shown < 0 && chosen.length" class="mixer-readout dim">
      {{ chosen.length }} selected – drag one and they move together
    </p>
    <p v-else-if="shown < 0" class="mixer-readout dim">
      Drag across the faders to draw · drag the numbers to select<span class="mixer-keys">
        · Shift for a straight line</span>
    </p>
    <p v-else class="mixer-readout">
      <b>{{ label(shown) }}</b>
      <span v-if="isOff(shown)">{{ off }}</span>
      <span v-else-if="scales && vals[shown]" class="mono">{{
        text(vals[shown]) }} of what it learned</span>
      <span v-else-if="vals[shown]" class="mono"><span class="mixer-keys">learning rate </span>{{
        plainBase() }} × {{ text(vals[shown]) }} = {{ rate(shown) }}</span>
      <span v-else class="is-ice">${ICE} {{ none }}</span>
      <span v-if="behindOf(shown) !== null" class="dim mixer-keys">{{
        behind.label }} {{ scientific(behindOf(shown)) }}</span>
      <span v-if="gainOf(shown)" class="dim">{{ share(shown) }}</span>
      <span v-if="chosen.includes(shown)" class="dim">
        {{ chosen.length }} selected – they move together
      </span>
    </p>
    <span class="mixer-chip" :class="{ 'is-ice': frozen(all) }">
      {{ count(all, " of " + all.places.length, scales ? "on" : "training") }}
    </span>
    <button
      type="button"
      class="mixer-log"
      :aria-pressed="log"
      title="A log scale, for small rates"
      @click="log = !log"
    >Log scale</button>
    <button
      v-for="(name, k) in ['Undo', 'Redo']"
      :key="name"
      type="button"
      class="mixer-step"
      :aria-label="name"
      :title="name + (k ? ' (Ctrl+Shift+Z)' : ' (Ctrl+Z)')"
      :aria-disabled="!can[k]"
      @click="step(k)"
    ><svg viewBox="0 0 24 24" :class="{ 'is-mirrored': k }" aria-hidden="true">
      <path d="M8 5 3 10l5 5M3 10h11a5 5 0 0 1 0 10h-4" />
    </svg></button>
  </div>`;

const FADERS = `
  <svg
    class="mixer-curve"
    :viewBox="'0 0 ' + row.length + ' 100'"
    preserveAspectRatio="none"
    aria-hidden="true"
  >
    <path v-for="(d, name) in curve(row)" :key="name" :class="name" :d="d" />
  </svg>
  <div
    v-for="i in row"
    :key="i"
    role="slider"
    class="fader"
    :class="look(i)"
    :style="{ '--v': high(vals[i]) }"
    :data-index="i"
    :tabindex="i === roving ? 0 : -1"
    :aria-label="names[i]"
    aria-orientation="vertical"
    aria-valuemin="0"
    aria-valuemax="1"
    :aria-valuenow="vals[i]"
    :aria-valuetext="spoken(i)"
    :aria-disabled="isOff(i) || null"
  ><b v-if="behindOf(i) !== null" :style="{ '--b': behindHeight(i) }"></b><s
    v-if="gainOf(i)"
    :style="{ '--g': gainOf(i).height, '--e': gainOf(i).error }"
  ></s><i></i></div>`;

const BANK = `
  <div class="mixer-head" aria-hidden="true">
    <b>{{ bank.name.replace("-", "–") }}</b>
    <span class="dim">{{ bank.hint }}</span>
    <span
      v-if="bank.key !== 'other'"
      class="mixer-count"
      :class="{ 'is-ice': frozen(bank) }"
    >{{ count(bank, "", "active") }}</span>
  </div>
  <div v-for="row in bank.rows" :key="row[0]" class="mixer-row">
    <div class="mixer-scale" aria-hidden="true">
      <i v-for="[y, mark] in marks()" :key="mark" :style="{ '--v': y }">{{ mark }}</i>
    </div>
    <div
      v-for="kind in ['tracks', 'numbers']"
      :key="kind"
      :class="'mixer-' + kind"
      @pointerdown="press($event, row, kind)"
      @pointermove="move($event, row)"
      @pointerup="release"
      @pointercancel="release"
    >
      <template v-if="kind === 'tracks'">${FADERS}</template>
      <span v-else v-for="i in row" :key="i" :class="look(i)" aria-hidden="true">{{
        i - bank.places[0]
      }}</span>
    </div>
  </div>`;

const NUDGE = `
  <div class="mixer-nudge">
    <b>{{ touched ? label(roving) : "Touch a fader" }}</b>
    <button
      type="button"
      :disabled="!touched"
      :aria-label="'Lower ' + names[roving]"
      @click="bump(-0.05)"
    >−</button>
    <input
      :disabled="!touched"
      inputmode="decimal"
      autocomplete="off"
      :aria-label="'Value of ' + names[roving]"
      :value="typed ?? text(vals[roving])"
      @input="enter((typed = $event.target.value))"
      @blur="typed = null"
    />
    <button
      type="button"
      :disabled="!touched"
      :aria-label="'Raise ' + names[roving]"
      @click="bump(0.05)"
    >+</button>
  </div>`;

export default {
  props: {
    names: Array,
    values: Array,
    selected: Array, // names
    base: Number, // the learning rate
    scales: Boolean, // no rates: how much of what was learned is drawn with
    behind: Object, // {label, values: [number or null]} of the last run, or null
    measured: Object, // {blocks: [{height, error, share, share_error} or null]}, or null
    idle: Array, // names of the faders without use
    off: String, // why they have none
    steps: Array, // [can undo, can redo]
    said: Array, // [number, news for a screen reader]
    version: Number, // counts what the server sent
  },
  emits: ["commit", "select", "undo", "redo", "copied"],
  template: `
    <div
      class="mixer"
      :class="{ 'is-busy': busy, 'is-log': log }"
      :data-selection="chosen.length || null"
      @clear-selection="select([])"
    >
      ${BAR}
      <div
        class="mixer-banks"
        @keydown="key"
        @focusin="focused"
        @focusout="inside = false"
        @pointerleave="hot = -1"
      >
        <div
          v-for="bank in layout"
          :key="bank.key"
          role="group"
          :aria-label="bank.key === 'other' ? 'Other weights' : bank.name"
          :class="'mixer-bank is-' + bank.key"
          :style="{ '--n': bank.places.length }"
        >${BANK}</div>
      </div>
      ${NUDGE}
      <div class="sr-only" aria-live="polite">{{ news }}</div>
    </div>`,
  data() {
    return {
      vals: [...this.values],
      can: [...this.steps],
      chosen: [],
      roving: 0,
      hot: -1,
      inside: false,
      // a fader had the focus, which the field of a phone is for
      touched: false,
      busy: false,
      narrow: false,
      log: false,
      typed: null,
      news: "",
    };
  },
  created() {
    // What gestures, double taps, typing and undo steps remember from event to event;
    // nothing of it is shown.
    this.stroke = null;
    this.tap = null;
    this.last = null;
    this.anchor = null;
    this.buffer = "";
    this.pause = 0;
    this.turn = 0;
    this.end = new AbortController();
  },
  mounted() {
    const until = { signal: this.end.signal };
    const phone = matchMedia(PHONE);
    phone.addEventListener("change", () => (this.narrow = phone.matches), until);
    this.narrow = phone.matches;
    const dialog = this.$el.closest("[role=dialog]") ?? this.$el;
    dialog.addEventListener("keydown", this.shortcut, until);
  },
  beforeUnmount() {
    this.end.abort();
  },
  computed: {
    // what a fader at 0 says
    none() {
      return this.scales ? "off" : "frozen";
    },
    layout() {
      return Object.keys(BANKS)
        .map(this.bank)
        .filter((bank) => bank.places.length);
    },
    all() {
      const blocks = (i) => this.names[i] !== "other";
      return { places: range(0, this.names.length - 1).filter(blocks) };
    },
    shown() {
      if (this.hot >= 0 || !this.inside) return this.hot;
      return this.roving;
    },
  },
  watch: {
    version() {
      const { stroke } = this;
      const drawn = stroke ? this.changes(stroke.start) : [];
      this.vals = [...this.values];
      this.can = [...this.steps];
      this.typed = null;
      this.turn += 1;
      if (stroke) stroke.start = [...this.values];
      else this.chosen = this.selected.map((name) => this.names.indexOf(name));
      // the hand that draws wins
      for (const [i, value] of drawn) this.vals[i] = value;
    },
    said([, news]) {
      this.tell(news);
    },
  },
  methods: {
    bank(key) {
      const [title, hint] = BANKS[key];
      const places = range(0, this.names.length - 1).filter((i) =>
        this.names[i].startsWith(key),
      );
      const count = places.length;
      const name = key === "other" ? title : `${title} 0-${count - 1}`;
      const rows = this.narrow ? Math.ceil(count / LONGEST_ROW) : 1;
      const long = Math.ceil(count / rows);
      const rowOf = (k) => places.slice(k * long, (k + 1) * long);
      return { key, name, hint, places, rows: range(0, rows - 1).map(rowOf) };
    },
    bankOf(i) {
      return this.layout.findIndex((bank) => bank.places.includes(i));
    },
    isOff(i) {
      return this.idle.includes(this.names[i]);
    },
    ...words,
    ...server,
    ...pointer,
    ...keyboard,
  },
};
