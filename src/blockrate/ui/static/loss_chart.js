// The loss by steps: raw, smoothed, and of the validation.
// Points come by `take`, each of them once.
// of the drawing, in its own units, which are stretched to its place
const WIDE = 1000;
const HIGH = 1000;
const TICKS = 4;

function text(value) {
  if (value < 0.01 || value >= 1e4) return value.toExponential(2);
  return `${+value.toPrecision(3)}`;
}

// The exponential moving average, without its pull towards zero at the start.
function smoothed(values, weight) {
  let mean = 0;
  let share = 0;
  return values.map((value) => {
    if (value == null) return null;
    mean = weight * mean + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return mean / share;
  });
}

// Round numbers around all values: 1, 2 or 5 times a power of ten apart.
function ticks(low, top) {
  const rough = (top - low || top || 1) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const gap = [1, 2, 5, 10].find((times) => times * power >= rough) * power;
  const first = Math.floor(low / gap);
  const count = Math.max(Math.ceil(top / gap) - first, 1) + 1;
  return Array.from({ length: count }, (_, k) => (first + k) * gap);
}

// Numbers around all values that lie apart by equal factors.
function logarithmicTicks(low, top) {
  const at = (k) => low * 0.95 * (top / low / 0.9) ** (k / TICKS);
  return Array.from({ length: TICKS + 1 }, (_, k) => +at(k).toPrecision(2));
}

export default {
  props: { smoothing: Number, log: Boolean },
  emits: ["ready"],
  template: `
    <figure class="loss-chart">
      <p class="chart-bar" aria-hidden="true">
        <span v-for="(words, name) in told" :class="name">{{ words }}</span>
      </p>
      <div class="chart-body">
        <div class="chart-names" aria-hidden="true">
          <span v-for="tick in scale" :style="{ top: y(tick) / 10 + '%' }">{{ text(tick) }}</span>
        </div>
        <div
          class="loss-field"
          @pointermove="point"
          @pointerdown="point"
          @pointerleave="at = null"
        >
          <svg
            viewBox="0 0 ${WIDE} ${HIGH}"
            preserveAspectRatio="none"
            role="img"
            :aria-label="'Loss. ' + Object.values(told).join(', ')"
          >
            <path
              class="grid"
              :d="scale.map((tick) => 'M0 ' + y(tick) + 'H${WIDE}').join('')"
            />
            <path
              v-for="(line, name) in lines"
              :key="name"
              :class="name"
              :d="path(line, 'L')"
            />
            <path class="dots" :d="path(lines.validation, 'h0M')" />
          </svg>
          <i
            v-if="at !== null"
            class="loss-cursor"
            :style="{ left: x(lines.raw.steps[at]) / 10 + '%' }"
          ></i>
        </div>
      </div>
      <div class="chart-steps" aria-hidden="true">
        <span v-for="step in span">{{ step.toLocaleString("en") }}</span>
      </div>
    </figure>`,
  data() {
    return {
      turn: 0, // counts what was taken
      at: null, // the place of the point that is looked at
    };
  },
  created() {
    this.taken = {
      raw: { steps: [], values: [] },
      validation: { steps: [], values: [] },
    };
  },
  mounted() {
    this.$emit("ready");
  },
  computed: {
    lines() {
      void this.turn;
      const { raw, validation } = this.taken;
      const values = smoothed(raw.values, this.smoothing);
      return { raw, smoothed: { steps: raw.steps, values }, validation };
    },
    span() {
      const steps = [...this.lines.raw.steps, ...this.lines.validation.steps];
      return steps.length ? [Math.min(...steps), Math.max(...steps)] : [];
    },
    scale() {
      const values = Object.values(this.lines)
        .flatMap((line) => line.values)
        .filter((value) => value > 0 || (value != null && !this.log));
      if (!values.length) return [0.1, 1];
      const around = this.log ? logarithmicTicks : ticks;
      return around(Math.min(...values), Math.max(...values));
    },
    told() {
      const { raw, smoothed: line, validation } = this.lines;
      const at = this.at ?? raw.steps.length - 1;
      const step = raw.steps[at];
      if (step === undefined) return {};
      const last = validation.steps.findLastIndex((other) => other <= step);
      const values = {
        raw: raw.values[at],
        smoothed: line.values[at],
        validation: validation.values[last],
      };
      const words = { step: `Step ${step.toLocaleString("en")}` };
      for (const [name, value] of Object.entries(values))
        if (value != null) words[name] = `${name} ${text(value)}`;
      return words;
    },
  },
  methods: {
    text,
    take(name, start, steps, values) {
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
      const here = measure(Math.max(value, this.scale[0]));
      return HIGH - (HIGH * (here - low)) / (top - low || 1);
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
    point({ currentTarget, clientX }) {
      const box = currentTarget.getBoundingClientRect();
      const share = (clientX - box.left) / box.width;
      const [first, last] = this.span;
      const step = first + share * (last - first);
      const { steps } = this.lines.raw;
      let nearest = 0;
      steps.forEach((other, k) => {
        if (Math.abs(other - step) < Math.abs(steps[nearest] - step)) nearest = k;
      });
      this.at = nearest;
    },
  },
};
