// Losses by steps, of one run or of several: raw, smoothed, and of the validation.
// Points come by `take`, each of them once.
import { nearest, smoothed, text, ticks } from "blockrate-chart/scale.js";
import zoom from "blockrate-chart/zoom.js";
// of the drawing, in its own units, which are stretched to its place
const WIDE = 1000;
const HIGH = 1000;
const NOTHING = { steps: [], values: [] };
const MOVES = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

export default {
  mixins: [zoom],
  props: {
    runs: Array, // of each its `slot`, "" for the only one, and its `name`
    smoothing: Number,
    log: Boolean, // the scale
    clip: Boolean, // leave outliers out of the scale
    raw: Boolean, // show each step too
    kinds: Array, // "loss", "validation"
  },
  emits: ["ready"],
  template: `
    <figure class="loss-chart" :class="{ 'is-of-many': isOfMany }">
      <p class="chart-bar" :aria-live="at === null ? 'off' : 'polite'">
        <span v-for="(words, name) in told" :class="name">{{ words }}</span>
      </p>
      <div class="chart-zoom" role="group" aria-label="Zoom">
        <button type="button" aria-label="Nearer" title="Nearer (+)" @click="zoom(2)">+</button>
        <button type="button" aria-label="Farther" title="Farther (-)" :disabled="!part"
          @click="zoom(0.5)">−</button>
        <button type="button" title="All steps (0)" :disabled="!part"
          @click="showAll">All steps</button>
      </div>
      <div class="chart-body">
        <div class="chart-names" aria-hidden="true">
          <span v-for="tick in scale" :style="{ top: y(tick) / 10 + '%' }">{{ text(tick) }}</span>
        </div>
        <div
          class="loss-field"
          @pointermove="move"
          @pointerdown="press"
          @pointerup="endDrag"
          @pointercancel="drag = null"
          @pointerleave="at = null"
          @dblclick="showAll"
        >
          <svg
            viewBox="0 0 ${WIDE} ${HIGH}"
            preserveAspectRatio="none"
            role="img"
            tabindex="0"
            :class="{ 'is-part': part || clip }"
            :aria-label="summary"
            @keydown="key"
            @blur="at = null"
          >
            <path
              class="grid"
              :d="scale.map((tick) => 'M0 ' + y(tick) + 'H${WIDE}').join('')"
            />
            <template v-for="line in lines" :key="line.kind + line.slot">
              <path :class="[line.kind, 'run' + line.slot]" :d="path(line, 'L')" />
              <path
                v-if="line.kind === 'validation'"
                :class="['dots', 'run' + line.slot]"
                :d="path(line, 'h0M')"
              />
            </template>
          </svg>
          <i
            v-if="cursor !== null"
            class="loss-cursor"
            :style="{ left: x(cursor) / 10 + '%' }"
          ></i>
          <i v-if="band" class="loss-band" :style="band"></i>
        </div>
      </div>
      <div class="chart-steps" aria-hidden="true">
        <span v-for="step in span">{{ Math.round(step).toLocaleString("en") }}</span>
      </div>
    </figure>`,
  data() {
    return {
      turn: 0, // counts what was taken
      at: null, // the step that is looked at
    };
  },
  created() {
    this.taken = {};
  },
  mounted() {
    this.$emit("ready");
  },
  computed: {
    isOfMany() {
      return this.runs.some((run) => run.slot !== "");
    },
    lines() {
      void this.turn;
      const lines = this.runs.flatMap(({ slot, name }) => {
        const raw = this.taken[`raw${slot}`] ?? NOTHING;
        const values = smoothed(raw.values, this.smoothing);
        const validation = this.taken[`validation${slot}`] ?? NOTHING;
        return [
          { kind: "raw", slot, name, ...raw },
          { kind: "smoothed", slot, name, steps: raw.steps, values },
          { kind: "validation", slot, name, ...validation },
        ];
      });
      return lines.filter(({ kind }) => this.isShown(kind));
    },
    steps() {
      const steps = this.lines.flatMap((line) => line.steps);
      return [...new Set(steps)].sort((one, other) => one - other);
    },
    whole() {
      return this.steps.length ? [this.steps[0], this.steps.at(-1)] : [];
    },
    cursor() {
      const place = this.at === null ? -1 : nearest(this.steps, this.at);
      return place < 0 ? null : this.steps[place];
    },
    scale() {
      const [first, last] = this.span;
      const values = this.lines.flatMap((line) =>
        line.values.filter((_, k) => line.steps[k] >= first && line.steps[k] <= last),
      );
      return ticks(values, this);
    },
    summary() {
      const told = Object.values(this.told).join(", ");
      return `Loss. ${told}. Arrow keys read the values, plus and minus zoom.`;
    },
    told() {
      const step = this.cursor ?? this.whole[1];
      if (step === undefined) return {};
      const words = { step: `Step ${step.toLocaleString("en")}` };
      for (const line of this.lines) {
        const last = line.steps.findLastIndex((other) => other <= step);
        const value = line.values[last];
        const key = this.isOfMany ? `run${line.slot}` : line.kind;
        if (this.isOfMany) words[key] ??= line.name;
        if (value == null) continue;
        const kind = this.isOfMany && line.kind === "smoothed" ? "loss" : line.kind;
        const told = `${kind} ${text(value)}`;
        words[key] = words[key] ? `${words[key]} · ${told}` : told;
      }
      return words;
    },
  },
  methods: {
    text,
    isShown(kind) {
      if (kind === "validation") return this.kinds.includes("validation");
      return this.kinds.includes("loss") && (kind !== "raw" || this.raw);
    },
    take(name, start, steps, values) {
      this.taken[name] ??= { steps: [], values: [] };
      this.taken[name].steps.splice(start, Infinity, ...steps);
      this.taken[name].values.splice(start, Infinity, ...values);
      this.turn += 1;
      if (!start) this.at = null;
    },
    x(step) {
      return (WIDE * (step - this.span[0])) / (this.span[1] - this.span[0] || 1);
    },
    y(value) {
      const measure = this.log ? Math.log : (each) => each;
      const low = measure(this.scale[0]);
      const top = measure(this.scale.at(-1));
      // there is no logarithm of what is not above 0
      const here = measure(this.log ? Math.max(value, 1e-12) : value);
      const place = HIGH - (HIGH * (here - low)) / (top - low || 1);
      return Math.min(Math.max(place, -HIGH), 2 * HIGH);
    },
    path({ steps, values }, pen) {
      let line = "";
      values.forEach((value, k) => {
        if (value == null) return;
        // a gap where there is no value
        const goesOn = k > 0 && values[k - 1] != null;
        const x = this.x(steps[k]).toFixed(1);
        const y = this.y(value).toFixed(1);
        line += `${goesOn ? pen : "M"}${x} ${y}h0`;
      });
      return line;
    },
    move(event) {
      this.goOnDragging(event);
      this.at = this.step(this.share(event));
    },
    press(event) {
      this.startDrag(event);
      this.at = this.step(this.share(event));
    },
    key(event) {
      const { key } = event;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (key in MOVES && this.steps.length) {
        const last = this.steps.length - 1;
        const from = this.cursor ?? this.steps.at(-1);
        const place = nearest(this.steps, from) + MOVES[key];
        this.at = this.steps[Math.min(last, Math.max(0, place))];
        this.follow(this.at);
      } else if (!this.zoomKey(key)) return;
      event.preventDefault();
      event.stopPropagation();
    },
  },
};
