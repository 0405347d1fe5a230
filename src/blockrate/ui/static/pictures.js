// One picture as large as there is room, or two of them one over the other with a
// slider between; closer and further by buttons and by the keys + - 0.
const CLOSER = 1.5;
const MOST = 16;
const KEYS = { "+": CLOSER, "=": CLOSER, "-": 1 / CLOSER, 0: 0 };
const FIELDS = "input:not([type=range]), textarea, select, [role=combobox]";

export default {
  props: {
    first: Object, // src and alt of a picture
    second: Object, // of the one over it; null without
    divide: String, // what the slider is called
  },
  template: `
    <div class="pictures">
      <div
        ref="stage"
        class="pictures-stage"
        :class="{ 'is-closer': zoom > 1 }"
        :tabindex="zoom > 1 ? 0 : null"
        :role="zoom > 1 ? 'group' : null"
        :aria-label="zoom > 1 ? 'Part of the picture' : null"
      >
        <div class="pictures-frame" :class="{ 'is-coarse': scale >= 2 }" :style="size">
          <img v-if="first" :src="first.src" :alt="first.alt" @load="measure" />
          <template v-if="second">
            <img
              :src="second.src"
              :alt="second.alt"
              class="is-over"
              :style="{ clipPath: 'inset(0 0 0 ' + split + '%)' }"
            />
            <span class="pictures-line" :style="{ left: split + '%' }"></span>
          </template>
        </div>
      </div>
      <div class="pictures-tools">
        <input
          v-if="second"
          v-model.number="split"
          type="range"
          class="slider"
          min="0"
          max="100"
          :aria-label="divide"
          :aria-valuetext="split + ' %'"
          @keydown.left.stop
          @keydown.right.stop
          @keydown.up.stop
          @keydown.down.stop
        />
        <button type="button" aria-label="Further away" :aria-disabled="zoom <= 1" @click="by(1 / ${CLOSER})">
          &minus;
        </button>
        <output aria-label="How close">{{ Math.round(100 * scale) }} %</output>
        <button type="button" aria-label="Closer" :aria-disabled="zoom >= ${MOST}" @click="by(${CLOSER})">
          +
        </button>
        <button type="button" :aria-disabled="zoom <= 1" @click="by(0)">Whole</button>
      </div>
    </div>
  `,
  data: () => ({ split: 50, zoom: 1, natural: [1, 1], room: [1, 1] }),
  computed: {
    // pixels of the screen for one of the picture
    scale() {
      const [width, height] = this.natural;
      return Math.min(this.room[0] / width, this.room[1] / height) * this.zoom;
    },
    size() {
      const [width, height] = this.natural;
      return { width: `${width * this.scale}px`, height: `${height * this.scale}px` };
    },
  },
  mounted() {
    this.home = this.$el.closest(".q-dialog") ?? this.$el;
    this.home.addEventListener("keydown", this.onKey);
    this.watch = new ResizeObserver(this.look);
    this.watch.observe(this.$refs.stage);
    this.look();
  },
  beforeUnmount() {
    this.home.removeEventListener("keydown", this.onKey);
    this.watch.disconnect();
  },
  methods: {
    look() {
      const { offsetWidth, offsetHeight } = this.$refs.stage;
      this.room = [offsetWidth || 1, offsetHeight || 1];
    },
    measure({ target }) {
      this.natural = [target.naturalWidth || 1, target.naturalHeight || 1];
    },
    onKey(event) {
      const isOther = event.ctrlKey || event.metaKey || event.altKey;
      if (isOther || !(event.key in KEYS) || event.target.closest(FIELDS)) return;
      event.preventDefault();
      this.by(KEYS[event.key]);
    },
    // 0: as a whole
    by(factor) {
      const { stage } = this.$refs;
      const across = (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth;
      const down = (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight;
      this.zoom = Math.min(MOST, Math.max(1, this.zoom * factor));
      // what was in the middle stays there
      this.$nextTick(() => {
        stage.scrollLeft = across * stage.scrollWidth - stage.clientWidth / 2;
        stage.scrollTop = down * stage.scrollHeight - stage.clientHeight / 2;
      });
    },
  },
};
